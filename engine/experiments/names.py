"""The experiments by name and what each is about: for `--help`, so without importing what they are made of."""

EXPERIMENTS = {
    "fig2": "t-SNE of class vectors: training, removed and test classes (trains nothing)",
    "fig3": "training classes nearest to a test class (trains nothing)",
    "fig4": "accuracy over the number of training videos and of training classes",
    "fig5": "diversity of the training classes: drawn within 1, 2, 3, 6 clusters",
    "fig6": "pretraining on pictures, over the number of training videos",
    "fig7": "accuracy over the distance of a test class from the training classes",
    "table1": "half of the test classes (Evaluation Protocol 1), beside published numbers",
    "table2": "all test classes (Evaluation Protocol 2), beside published numbers",
    "table3": "ablation: frozen, end to end, pretraining, joint training, several snippets",
    "overlap": "what overlapping training classes give when they are left in",
    "methods": "the methods of a file (--methods) against one of them, with paired differences",
}
