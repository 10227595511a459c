from medimg_export.phantom_chest import Phantom, chest
__all__ = ["Phantom", "chest"]
