"""Looking at an evaluated model: what it found easy and hard, as one HTML file and as pictures in TensorBoard.

ZeroShotResult ──▶ findings ──▶ page (charts, page.html; run_folder) ──▶ report.html
                      │    └──▶ board (figures) ──▶ TensorBoard
                      ├── contact_sheets: best and worst videos, decoded anew
                      ├── embedding_map: t-SNE of videos among class names
                      └── nearest seen class of each unseen one
"""
