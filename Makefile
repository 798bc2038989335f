# make train and make test set everything up by themselves, in .venv
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
ARGS ?=

.PHONY: setup train test lint format clean

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --disable-pip-version-check -r requirements.txt
	touch $@

# fine-tune adapters on the built-in sample (or on ARGS="--dataset_dir /data/mine"), score them, and draw predictions
train: setup
	$(RUN) monai.bundle run training --config_file configs/train.yaml --max_epochs 10 $(ARGS)
	$(RUN) monai.bundle run evaluating --config_file "['configs/train.yaml','configs/evaluate.yaml']" $(ARGS)
	$(RUN) monai.bundle run inferring --config_file configs/inference.yaml
	@echo "model: models/model.pt   metrics: eval/metrics.json   overlays: eval/predictions   tensorboard --logdir eval/tensorboard"

test: setup lint
	$(RUN) pytest
	$(RUN) pytest -m slow

lint: setup
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: setup
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:
	rm -rf eval .cache models/model.pt models/model_final.pt models/last.pth models/adapter.pth
