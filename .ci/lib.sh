# shellcheck shell=bash
# Shared by .ci/run and .ci/slow, which source it from the repository's root.
# It copies the working tree (what git tracks or would track) into a scratch folder: every check runs on what a fresh
# clone would hold, and leaves no trace in the clone.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off PIP_ROOT_USER_ACTION=ignore
unset FASTRNN_ISA FASTRNN_NUM_THREADS
export torch_version=2.13.0 # the comparisons with torch were made against this one

scratch=$(mktemp -d)
declare -A running=() # process groups of what runs beside, by name
trap '[ ${#running[@]} = 0 ] || kill -- "${running[@]/#/-}" 2>/dev/null || true; rm -rf "$scratch"' EXIT
tree=$scratch/tree
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard |
  tar --null --files-from=- --ignore-failed-read --create | tar --extract --directory "$tree"
cd "$tree" || exit

section_name=
section_start=0

# section NAME: a heading; the time of the section before it.
section() {
  [ -z "$section_name" ] || printf -- '-- %s: %d s\n' "$section_name" $((SECONDS - section_start))
  section_name=$1 section_start=$SECONDS
  printf '\n==== %s\n' "$1"
}

# beside FUNCTION: runs it while the sections that follow run; joined FUNCTION shows what it printed, and fails where it
# did.
beside() {
  set -m # a process group of its own: what it has started ends with it
  "$1" >"$scratch/$1.log" 2>&1 </dev/null &
  set +m
  running[$1]=$!
}

joined() {
  local status=0
  wait "${running[$1]}" || status=$?
  unset "running[$1]"
  cat "$scratch/$1.log"
  return "$status"
}

# readme_block NAME: the fenced block of README.md that follows the line <!-- setup: NAME -->.
readme_block() {
  local block
  block=$(awk -v mark="<!-- setup: $1 -->" '
    $0 == mark { armed = 1; next }
    armed && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }' README.md)
  [ -n "$block" ] || { echo "README.md has no block marked '$1'" >&2; return 1; }
  printf '%s\n' "$block"
}

# run_readme NAME: shows and runs such a block of shell commands.
run_readme() {
  local block
  block=$(readme_block "$1")
  printf '$ %s\n' "$block"
  bash -euo pipefail -c "$block"
}

# suite NAME COMMAND...: runs a test suite, keeps what it prints as NAME.log, and its last line for closing().
suite() {
  local name=$1
  shift
  "$@" 2>&1 | tee "$scratch/$name.log"
  printf '%-24s %s\n' "$name" "$(grep -v '^[[:space:]]*$' "$scratch/$name.log" | tail -n 1)" >>"$scratch/closing"
}

# closing: how every suite ended.
closing() {
  section Summary
  cat "$scratch/closing"
  printf 'all passed in %d s\n' "$SECONDS"
}

# cpp_tests BUILD-DIR CMAKE-ARGUMENT...: the C++ library and its tests, without Python; runs them.
# A subshell: only here are CMake and ninja taken from the tools, pip must find its own.
cpp_tests() (
  build=$1
  shift
  PATH=$scratch/tools/bin:$PATH
  cmake -S . -B "$build" -G Ninja -DFASTRNN_BUILD_PYTHON=OFF -DFASTRNN_BUILD_TESTS=ON -DFASTRNN_WERROR=ON "$@"
  cmake --build "$build"
  cd "$build" || exit
  ctest --output-on-failure --no-tests=error
)
