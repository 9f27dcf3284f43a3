# The public names and where they are: read by type checkers, and by __init__.py when one is used.
from . import interop as interop
from . import training as training
from .api.apply import apply as apply
from .api.compose import compose as compose
from .api.diff import diff as diff
from .api.evaluate import evaluate as evaluate
from .api.export import export as export
from .api.extract import extract as extract
from .api.info import info as info
from .api.list_masks import list_masks as list_masks
from .api.load import load_model as load_model
from .api.load import load_tasks as load_tasks
from .api.load import pipeline as pipeline
from .api.open import open as open
from .api.open import save as save
from .api.pack import pack as pack
from .api.plot import plot as plot
from .api.predict import predict as predict
from .api.pull import pull as pull
from .api.push import push as push
from .api.train import train as train
from .api.verify import verify as verify
from .checkpoints.checkpoint import Checkpoint as Checkpoint
from .checkpoints.checkpoint import open_checkpoint as open_checkpoint
from .errors import MaskhubError as MaskhubError
from .masks.mask import Mask as Mask
from .masks.mask import MaskSet as MaskSet

__all__: list[str]
__version__: str
