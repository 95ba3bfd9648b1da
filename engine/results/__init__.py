"""What a training or an evaluation has reached, and all ways to show it.

accuracy   what a set of videos gave, as it is kept      record     results.json: written, read, replaced whole
table      text, Markdown, CSV                           tables     of test sets: for people, and as CSV
figures    colours, sizes, PNG                           pictures   of results and clips      plots   of experiments
labels     names beside points and titles that fit       scripts    names in any script in a PNG
tsne       points on a plane                             visual_report   one HTML file, and the same in TensorBoard
html_page  any page: escaped, self-contained             moment_page     found moments as one HTML file
"""
