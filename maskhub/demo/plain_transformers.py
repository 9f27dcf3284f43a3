"""What anyone does with a dense checkpoint: load it with plain transformers and compute logits. No MaskHub here.

Usage: python plain_transformers.py CHECKPOINT EXAMPLES.jsonl.gz MAX_LENGTH LOGITS.npy
"""

import gzip
import json
import sys

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

checkpoint, examples, max_length, output = sys.argv[1:]
with gzip.open(examples, "rt", encoding="utf-8") as file:
    texts = [json.loads(line)["text"] for line in file]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
encoded = tokenizer(texts, truncation=True, max_length=int(max_length))
order = sorted(range(len(texts)), key=lambda row: -len(encoded["input_ids"][row]))  # batches of like lengths
logits = np.empty((len(texts), model.config.num_labels), np.float32)
for start in range(0, len(order), 32):
    rows = order[start : start + 32]
    batch = tokenizer.pad({key: [values[row] for row in rows] for key, values in encoded.items()}, return_tensors="pt")
    with torch.inference_mode():
        logits[rows] = model(**batch).logits.numpy()
if "maskhub" in sys.modules:
    sys.exit("maskhub was imported")
np.save(output, logits)
