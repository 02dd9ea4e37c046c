#!/usr/bin/env bash
# The main job and quick tests under other versions of Python, torch and every dependency that pyproject.toml allows.
#
#   scripts/matrix.sh [PYTHON:TORCH:HOW ...]        3.11:2.11:lowest 3.12:2.13:highest 3.13:2.15:highest, if none is named
#
# HOW is lowest (the lowest version of each direct dependency) or highest. One environment of some 5 GB at a time, made in a temporary
# folder and removed again (KEEP=DIR: there, and kept). The main job is README's at width 8 for 6 epochs; the tests are a quick part of
# all, and TESTS names others (TESTS=tests: all of them).
# PYTHONS (default: pyenv's, else PATH) is where the interpreters are: $PYTHONS/3.12*/bin/python. Needs uv (pip install uv).
# Prints a table of outcomes; logs are left in outputs/matrix. Exit code 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
rows=("$@")
[ ${#rows[@]} -gt 0 ] || rows=(3.11:2.11:lowest 3.12:2.13:highest 3.13:2.15:highest)
quick=(tests/placement tests/records tests/loggers tests/figures tests/test_metrics.py tests/config/test_address.py tests/pipeline
    tests/training/test_resume_state.py tests/training/test_schedules.py)
for name in rect ltpa large_margin lens_depth maxdropout ood_heads sam se1c kd gradcam channel_propagation norm_loss_step; do
    quick+=("tests/reference/test_$name.py")
done
tests=${TESTS:-${quick[*]}}
logs=$PWD/outputs/matrix
mkdir -p "$logs"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} WANDB_MODE=offline UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=${UV_LINK_MODE:-hardlink}
pythons=${PYTHONS:-$(pyenv root 2>/dev/null || true)/versions}

interpreter() { # of a version such as 3.12
    local found
    for found in "$pythons/$1"*/bin/python "$(command -v "python$1")"; do
        [ -x "$found" ] && echo "$found" && return
    done
    return 1
}

outcome() { # seconds and how it ended: outcome LOG COMMAND...
    local log=$1 start=$SECONDS
    shift
    if nice -n 10 "$@" >"$log" 2>&1; then echo "ok, $((SECONDS - start)) s"; else echo "FAILED, $(basename "$log")"; fi
}

check_main() { # the main job, and that it learned
    rm -rf "$2"
    "$1" -m attnlab.train model=resnet18 attention=rect model.width=8 trainer.max_epochs=6 "paths.outputs=$2" >"$2.out" || return 1
    "$1" -c '
import json, sys
result = json.load(open(sys.argv[1]))
print(result["status"], result["metrics"]["test/acc"], result["versions"])
assert result["status"] == "finished" and result["metrics"]["test/acc"] >= 0.8
' "$(tail -n 1 "$2.out")"
}
export -f check_main

install() { # install FOLDER PYTHON TORCH HOW
    local how=$4
    [ "$how" = lowest ] && how=lowest-direct
    local wheels=() package
    for package in numpy scipy scikit-learn pyarrow matplotlib pillow; do wheels+=(--only-binary "$package"); done # nothing is compiled here
    echo "torch==$3.*" >"$1.constraint"
    uv venv -q --python "$2" "$1" &&
        VIRTUAL_ENV=$1 uv pip install --prerelease if-necessary "${wheels[@]}" --resolution "$how" -c "$1.constraint" -e ".[dev,slurm]" &&
        VIRTUAL_ENV=$1 uv pip freeze
}
export -f install

table=()
failed=0
for row in "${rows[@]}"; do
    IFS=: read -r python torch how <<<"$row"
    name=$python-$torch-$how
    work=${KEEP:-$(mktemp -d)}
    mkdir -p "$work"
    installed="no python $python" main=- quick=-
    if exe=$(interpreter "$python"); then
        installed=$(outcome "$logs/$name.install.log" bash -c 'install "$@"' - "$work/$name" "$exe" "$torch" "$how")
        if [[ $installed == ok* ]]; then
            main=$(outcome "$logs/$name.main.log" bash -c 'check_main "$@"' - "$work/$name/bin/python" "$work/$name.outputs")
            # shellcheck disable=SC2086
            quick=$(outcome "$logs/$name.tests.log" "$work/$name/bin/python" -m pytest -q -n 2 --maxfail 50 -p no:cacheprovider $tests)
            quick="$quick: $(grep -Eo '[0-9]+ (passed|failed|error)[^=]*' "$logs/$name.tests.log" | tail -n 1)"
        fi
    fi
    [ -n "${KEEP:-}" ] || rm -rf "$work"
    [[ $installed$main$quick == *FAILED* || $installed == no* ]] && failed=1
    table+=("$(printf '%-7s %-6s %-8s %-28s %-26s %s' "$python" "$torch" "$how" "$installed" "$main" "$quick")")
    printf '%s\n' "${table[-1]}" >&2
done
printf '\n%-7s %-6s %-8s %-28s %-26s %s\n' python torch versions install "main job" "quick tests"
printf '%s\n' "${table[@]}"
exit "$failed"
