from .attach import MaskCallback as MaskCallback
from .attach import attach as attach
from .attach import clip_grad_norm_ as clip_grad_norm_
from .model import mask_model as mask_model
from .model import pack as pack
from .recording import read_recording as read_recording
from .settings import TrainSettings as TrainSettings
from .settings import settings_from as settings_from
