# Two commands on a fresh machine: `make demo` and `make test`. Both create .venv.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton<3.8  # what that torch goes with
BIN := .venv/bin
CSRC := $(wildcard csrc/*.h csrc/*.cpp csrc/cpu/*.h csrc/cpu/*.cpp csrc/cpu/*.inc csrc/cuda/*.h csrc/cuda/*.cpp csrc/cuda/*.cu)
PROGRAMS := bench/instructions.cpp $(wildcard proof/*.cpp)

.PHONY: demo test aot lint format bench proof gpu gpu-check sanitize docs wheel sdist wheels-check clean

# torch first: an isolated build environment would fetch a second one.
.venv/ready: pyproject.toml setup.py $(CSRC)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip "setuptools>=77" wheel ninja
	$(BIN)/pip install --quiet "$(TORCH)" numpy
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[tasks,bench,test,dev]" "$(strip $(TRITON))"
	touch $@

demo: .venv/ready  ## train a discrete VAE with every estimator on an embedded data set; table and pictures in runs/demo
	$(BIN)/python -m tasks.vae demo

# The Triton kernels need a run of their own: the interpreter is chosen before Python starts, and is slow.
INTERPRETED := $(addprefix tests/test_,triton.py kernels.py contract.py gst.py autograd.py capture.py compile_vmap.py operators.py recomputation.py temperatures.py bernoulli.py bernoulli_mean.py many.py triton_linear_embedding.py)
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --ignore tests/test_triton_aot.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/test_triton_aot.py
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -n auto -k triton $(INTERPRETED)

aot: .venv/ready  ## compile every Triton kernel that can be chosen, for every architecture; over an hour of two cores
	DISCRETE_OPS_AOT=80,90,100 $(BIN)/python -m pytest -s tests/test_triton_aot.py

bench: .venv/ready  ## what the ops cost and are worth on this machine, in five minutes; report, JSON and plots in build/bench
	$(BIN)/python -m bench

# One thread a process: what uses more says so itself. A check that has passed at this commit is not repeated.
proof: .venv/ready  ## what must never happen, tried at length: counts, and the tables of docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m proof

# With the machine's own torch, which must have CUDA; builds in place and installs nothing.
gpu:  ## everything that needs a GPU: build, tests, sanitizers, benchmarks; JSON and table in bench/results
	DISCRETE_OPS_CUDA=1 $(PYTHON) setup.py --quiet build_ext --inplace
	rm -rf build/gpu_carry
	PYTHON=$(PYTHON) bench/gpu_check.sh 1; first=$$?; PYTHON=$(PYTHON) bench/gpu_check.sh 2 && exit $$first

# What a GPU elsewhere runs comes from here: the stable ABI fits any torch from 2.10 on, and one architecture is 8 MB.
gpu-check: .venv/ready  ## build what travels to a machine with a GPU, and say what to run there; ARCH: 9.0
	DISCRETE_OPS_CUDA=1 TORCH_CUDA_ARCH_LIST=$(or $(ARCH),9.0) $(BIN)/python setup.py --quiet build_ext \
	--build-temp build/gpu_objects --build-lib build/gpu_carry
	git describe --always --dirty --abbrev=40 --exclude='*' >build/gpu_carry/commit
	@printf '%s\n' '' 'Take this tree to the machine, with one path that git ignores:' '    build/gpu_carry' \
	'There, from its root (290 s and 390 s at most; OUT: a directory for results and logs):' \
	'    bench/gpu_check.sh 1' '    bench/gpu_check.sh 2' 'Then put the results in bench/results here.'

sanitize: .venv/ready  ## the kernels' tests, and eight threads at once, under AddressSanitizer, UBSan and ThreadSanitizer
	OMP_NUM_THREADS=1 $(BIN)/python -m proof sanitizers --again

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CSRC) $(PROGRAMS)
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC) $(PROGRAMS)

# An environment of its own: the site is made of the sources, without torch and a compiler.
build/docs_env/ready: pyproject.toml
	$(PYTHON) -m venv build/docs_env
	sed -n 's/^docs = \[\(.*\)\]$$/\1/p' pyproject.toml | tr , ' ' | xargs build/docs_env/bin/pip install --quiet
	touch $@

docs: build/docs_env/ready  ## the documentation as a site in build/site
	NO_MKDOCS_2_WARNING=1 build/docs_env/bin/mkdocs build --strict

# No library of torch's travels in it; what repair adds is the name of the oldest Linux that it runs on.
wheel: .venv/ready  ## dist/discrete_ops-*.whl, for every Python and torch; on Linux a manylinux one
	rm -rf build/wheel
	$(BIN)/pip wheel --no-build-isolation --no-deps --wheel-dir build/wheel .
ifeq ($(shell uname),Linux)
	$(BIN)/pip install --quiet --group release
	PATH="$(BIN):$$PATH" auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' --wheel-dir dist build/wheel/*.whl
else
	mkdir -p dist && cp build/wheel/*.whl dist
endif

sdist: .venv/ready  ## dist/discrete_ops-*.tar.gz, and whether a package index takes what is in dist
	$(BIN)/pip install --quiet --group release
	$(BIN)/python setup.py --quiet sdist
	$(BIN)/cffconvert --validate
	$(BIN)/twine check --strict dist/*

wheels-check: wheel  ## that wheel beside every torch and Python to be had here; downloads some gigabytes a torch
	$(BIN)/python -m bench.wheels $$(ls -t dist/*.whl | head -1) --commit $$(git describe --always --dirty --exclude='*')

clean:
	rm -rf .venv build dist *.egg-info discrete_ops/*.so discrete_ops/build.json
