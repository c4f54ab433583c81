# The chain in order, then the developers' recipes. `just` lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

bin := env("KUBELINE_BIN", justfile_directory() / "target/release")

# list the recipes
default:
    @just --justfile "{{ justfile() }}" --list

# build or repair the cluster of FILE: one stage a line, each leaving out/CLUSTER/NN-TOOL.json
[no-exit-message]
up FILE *FLAGS:
    @scripts/chain up "{{ bin }}" "$@"

# show what `up` would do, stage by stage; touches nothing
[no-exit-message]
plan FILE:
    @scripts/chain plan "{{ bin }}" "$@"

# compare the live cluster with FILE; ends in 6 when something is off
[no-exit-message]
check FILE:
    @scripts/chain check "{{ bin }}" "$@"

# undo everything that `up FILE` made; asks first
[no-exit-message]
[confirm("This deletes the cluster and its machines. Go on? (y/N)")]
down FILE *FLAGS:
    @scripts/chain down "{{ bin }}" "$@"

# check FILE offline
lint-document FILE:
    @"{{ bin }}/pve-vm" lint -f "$1"

# the whole pipeline against the simulated world
demo:
    scripts/demo

# start the simulated world by hand; Ctrl-C ends it
lab *FLAGS:
    cargo run --release -p lab -- "$@"

# everything that must pass before a commit lands
test *PARTS:
    scripts/test "$@"

# format and lint
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# format
fmt:
    cargo fmt --all

# write the golden files anew, for review by git diff
golden:
    BLESS=1 cargo test --workspace --no-fail-fast -- golden

# read the manual page of a tool
man PAGE="kubeline.7":
    man -l "man/{{ PAGE }}"

# every crash point of every tool and of the pipeline
sweep:
    KUBELINE_SWEEP=all cargo test --release --workspace --no-fail-fast --test cli --test laws --test crash \
        --test faults --test events --test kadm_sweeps --test sweep -- --nocapture

# feed a reader of other programs' words with damage: kubeadm, look, etcd, ...
fuzz READER="kubeadm" *FLAGS="-max_total_time=60":
    scripts/fuzz "$@"

# times and memory of the pipeline in the lab; with `machines`, `kubernetes`: pve-vm, kadm-bootstrap beside what has to take time
bench *PARTS:
    scripts/bench "$@"

# on real machines: an apply with nothing to do, and 200 failovers: p50, p99, largest gap; root
bench-failover DRILLS="200":
    cargo build --release --locked --workspace --bins
    KUBELINE_HOSTS=1 KUBELINE_BIN="{{ bin }}" KUBELINE_DRILLS="$1" cargo test --workspace --test bench -- \
        --nocapture --test-threads=1

# our server-side apply beside kubectl's: time and memory
bench-apply *ARGS:
    scripts/bench-apply "$@"
