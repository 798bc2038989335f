# make train and make test set everything up by themselves, in .venv
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
ARGS ?=
# processes of make test
WORKERS ?= 2
# of make label
LABEL_VENV ?= .venv-label
HOST ?= 127.0.0.1
PORT ?= 8000
STUDIES ?=
# of make results
SETS ?=
LABELS ?=
TOKEN ?=
HOSTS ?=
ORIGINS ?=
# MONAI Label needs Python 3.11; with another one its tests are skipped
LABEL_TESTS = $(if $(shell $(PYTHON) -c 'import sys; print("yes" * (sys.version_info[:2] == (3, 11)))'),label-setup)

.PHONY: setup train test lint format clean results serve napari-setup label label-setup

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt
	@echo "installing the bundle's packages in $(VENV), 3.4 GB: some minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/tests: requirements-test.txt $(VENV)/installed
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

# fine-tune adapters on the built-in sample, score them, and draw predictions; with ARGS="--dataset_dir /data/mine" or other
# settings the pictures of your own validation images are those that scoring draws
train: setup
	$(RUN) monai.bundle run training --config_file configs/train.yaml --max_epochs 6 $(ARGS)
	$(RUN) monai.bundle run evaluating --config_file "['configs/train.yaml','configs/evaluate.yaml']" $(ARGS)
	$(if $(ARGS),,$(RUN) monai.bundle run inferring --config_file configs/inference.yaml)
	@echo "Look at, in $(if $(findstring --output_dir,$(ARGS)),your output_dir,eval): curves.png and before_after (training), panels (truth and answers)$(if $(ARGS),,, predictions (overlays))"
	@echo "The scores are metrics.json there; the model is model.pt, in $(if $(findstring --ckpt_dir,$(ARGS)),your ckpt_dir,models). More: $(VENV)/bin/tensorboard --logdir, of the folder tensorboard there"

# train and score the rows of tools/results.yaml on the sets in a folder, and write docs/results.md: make results SETS=/data
results: setup
	@test -n "$(SETS)" || { echo "error: give a folder of data sets: make results SETS=/data" >&2; exit 2; }
	$(RUN) tools.results --sets "$(SETS)" $(ARGS)

test: lint $(LABEL_TESTS)
	$(RUN) pytest -n $(WORKERS) --dist loadfile
	$(RUN) pytest -n $(WORKERS) --dist loadfile -m slow

lint: $(VENV)/tests
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

# serve the bundle to 3D Slicer and browsers: make label STUDIES=/data/mine (a folder of images, or a DICOMweb address);
# TOKEN=... is a password, HOSTS and ORIGINS are lists of names and of web pages that may ask
label: label-setup
	@test -n "$(STUDIES)" || { echo "error: give a folder of images: make label STUDIES=/data/mine" >&2; exit 2; }
	@TOKEN="$(TOKEN)" exec $(LABEL_VENV)/bin/python apps/label/serve.py --studies "$(STUDIES)" --host "$(HOST)" \
	  --port "$(PORT)" --labels "$(LABELS)" --hosts "$(HOSTS)" --origins "$(ORIGINS)"

# serve 3D Slicer, napari and ITK-SNAP: make serve; ARGS="--port 1600 --api-key secret" and others, which ARGS=--help lists
serve: setup
	@exec $(RUN) apps.serve $(ARGS)

# napari and its plugin, with which make test opens a window where there is xvfb-run
napari-setup: .venv-napari/installed

.venv-napari/installed: requirements-napari.txt
	$(PYTHON) -m venv .venv-napari
	.venv-napari/bin/pip install --quiet --disable-pip-version-check -r requirements-napari.txt
	touch $@

label-setup: $(LABEL_VENV)/installed

$(LABEL_VENV)/installed: requirements-label.txt apps/label/environment.py $(VENV)/installed
	@echo "installing MONAI Label in $(LABEL_VENV): a minute or two"
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-label.txt
	$(LABEL_VENV)/bin/python apps/label/environment.py $(VENV)
	touch $@

format: $(VENV)/tests
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:
	rm -rf eval .cache models/model.pt models/model_final.pt models/last.pth models/adapter.safetensors
