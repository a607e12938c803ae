# Everything a person does with a checkout. The first target is the default.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench dev bootstrap

BOOTSTRAP := deploy/local/bootstrap.sh
# asked for after bootstrap has run: it may have installed uv
UV = "$$($(BOOTSTRAP) --uv)"
RUN = $(UV) run --locked --all-extras

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bootstrap ## set everything up, run the whole pipeline on two live databases, print the proof, leave it running
	@$(RUN) chronicle dev demo

test: bootstrap ## set everything up and run every test (ARGS="tests/unit -k name" for some)
	@$(RUN) chronicle dev fetch # before pytest, whose timeout per test is no time for a download
	@$(RUN) pytest $(ARGS)

check: bootstrap ## ruff (lint and format) and mypy, changing nothing
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

bench: bootstrap ## measure capacity, latency and memory; writes bench.json
	@$(RUN) python -m tests.bench $(ARGS)

dev: bootstrap ## start the local stack (stop it: uv run chronicle dev down)
	@$(RUN) chronicle dev up $(ARGS)

bootstrap: ## install what is missing (Debian, Ubuntu); quick when nothing is
	@$(BOOTSTRAP)
