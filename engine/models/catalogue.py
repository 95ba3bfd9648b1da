"""The backbones by the names that configs call them by, and where each is written. No torch is needed to read it.

A new backbone is a subclass of `engine.models.backbone.Backbone` in a file of its own, and a line here.
"""

BACKBONES = {  # name -> module and class
    "r2plus1d_18": ("engine.models.backbones", "VideoResNet"),
    "r3d_18": ("engine.models.backbones", "VideoResNet"),
    "mc3_18": ("engine.models.backbones", "VideoResNet"),
    "c3d": ("engine.models.c3d", "C3D"),
    "vit_tiny": ("engine.models.video_transformer", "VideoTransformer"),
    "vit_small": ("engine.models.video_transformer", "VideoTransformer"),
    "vit_base": ("engine.models.video_transformer", "VideoTransformer"),
    "timm:*": ("engine.models.image_network", "ImageNetwork"),  # any 2-D network of timm, by its name there
}
