"""Learning masks: scores on a frozen base, trained by transformers' Trainer. Needs the extra ``maskhub[train]``."""
