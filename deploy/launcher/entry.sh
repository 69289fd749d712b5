#!/bin/sh
# The launcher image's only program. Puts limner and its libtorch onto the network volume where they are not there yet,
# and becomes limner: `entry.sh [COMMAND ARGUMENTS]` ends in `limner COMMAND ARGUMENTS`, by default `limner runpod`.
#
#   LIMNER_RELEASE_URL      archive that script/package made; https:// or file://
#   LIMNER_RELEASE_SHA256   its sum, which also tells versions apart
#   LIMNER_VOLUME           another folder than /runpod-volume, which must be a mounted volume
#   PIP_INDEX_URL           package index for libtorch's wheels (https://pypi.org/simple)
#
# On the volume, below limner/:
#   releases/ID/    a version, its libtorch a link into libtorch/ID/; complete when it holds `installed`, which is
#                   written last. A later start looks at that file and at nothing else.
#   downloads/SUM   a file of that sum; SUM.N a part of it, fetched by the holder of lease N
#   work.N/         what the holder of lease N unpacks
#   leases/N/beat   who may install
#
# Who installs: leases count up, and mkdir of the next number succeeds for one worker alone, on network file systems
# too. Its holder writes a new beat every few seconds. A beat that does not change for 30 s, by the waiting worker's own
# clock, is of a dead holder, and the next number is free to take. Where both run on one machine, flock says sooner that
# a holder is gone; between machines it is not believed, since some network file systems lock on each machine alone.
# A holder that was only slow finds a newer lease and ends; its files have names that nobody else writes.
set -eu

volume=${LIMNER_VOLUME:-/runpod-volume}
home=$volume/limner
sum=${LIMNER_RELEASE_SHA256:-}
release=$home/releases/$(printf %.16s "$sum")
index=${PIP_INDEX_URL:-https://pypi.org/simple}
machine=$(cat /proc/sys/kernel/random/boot_id)
lease='' mark='' beats=0 child='' errors='' doing='' watched=''

say() { # LEVEL MESSAGE, as `limner runpod` logs
  printf '{"requestId": null, "message": "%s", "level": "%s"}\n' \
    "$(printf %s "$2" | tr '[:cntrl:]' ' ' | sed 's/[\\"]/\\&/g')" "$1"
}

hand_back() {
  if [ -n "$lease" ]; then { echo free >"$home/leases/$lease/beat"; } 2>/dev/null || true; fi
  if [ -n "$errors" ]; then rm -f "$errors"; fi
  lease='' errors=''
}

fail() {
  if [ -n "$lease" ] && [ "$(newest_lease)" != "$lease" ]; then
    set -- "another worker took over the installation, since this one did nothing for 30 seconds"
  fi
  say ERROR "$1"
  hand_back
  exit 1
}

fail_unwritable() {
  fail "cannot write to the volume at $volume: it is full or its quota is used up, or it is read-only"
}

stop() {
  if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
  hand_back
  exit 143
}

is_installed() { [ -e "$release/installed" ]; }

# --- whose turn it is ---

newest_lease() { ls "$home/leases" | sort -n | tail -n 1; }

beat() {
  if [ "$(newest_lease)" != "$lease" ]; then
    if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
    fail "the lease is lost"
  fi
  beats=$((beats + 1))
  { echo "$mark $beats" >"$home/leases/$lease/beat"; } 2>/dev/null || fail_unwritable
}

# Whether nobody holds the newest lease, number $1. Remembers its beat to see whether it changes.
is_free() {
  [ -n "$1" ] || return 0
  now=$(cat "$home/leases/$1/beat" 2>/dev/null || true)
  if [ "$now" = free ]; then return 0; fi
  if [ "$1 $now" != "${seen:-}" ]; then
    seen="$1 $now" seen_at=$(date +%s)
  fi
  case $now in
    "$machine "*) if flock --nonblock 9 2>/dev/null; then return 0; fi ;;
  esac
  [ $(($(date +%s) - seen_at)) -ge 30 ]
}

# Returns when this release is installed, or when this worker is the one to do it.
wait_for_turn() {
  mkdir -p "$home/leases" "$home/releases" "$home/libtorch" "$home/downloads" 2>/dev/null &&
    touch "$home/lock" 2>/dev/null || fail_unwritable
  exec 9<>"$home/lock"
  waited=0
  until is_installed; do
    newest=$(newest_lease)
    if is_free "$newest"; then
      next=$((${newest:-0} + 1))
      if mkdir "$home/leases/$next" 2>/dev/null; then
        lease=$next mark=unlocked
        if flock --timeout 10 9 2>/dev/null; then mark=$machine; fi
        beat
        return
      fi
      [ -e "$home/leases/$next" ] || fail_unwritable
    fi
    flock --unlock 9 2>/dev/null || true
    if [ $((waited % 10)) -eq 0 ]; then say INFO "another worker installs limner on the volume; waiting for it"; fi
    waited=$((waited + 1))
    sleep 1
  done
}

# --- doing something beside the heartbeat ---

# run COMMAND...: its exit status; what it said is in $errors.
run() {
  ticks=0 status=0
  "$@" >/dev/null 2>"$errors" 9>&- &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.1
    ticks=$((ticks + 1))
    if [ $((ticks % 50)) -eq 0 ]; then
      beat
      if [ -e "$watched" ]; then say INFO "$doing: $(($(stat -c %s "$watched") / 1000000)) MB"; fi
    fi
  done
  wait "$child" || status=$?
  child=''
  return "$status"
}

last_error() { tail -n 1 "$errors"; }

# must WHAT COMMAND...; with a quick command, soon: without the heartbeat.
must() {
  what=$1
  shift
  run "$@" || explain "$what"
}

soon() {
  "$@" 2>"$errors" || explain "cannot write to the volume"
}

explain() {
  if grep -qiE 'no space|disk full|quota' "$errors"; then fail_full; fi
  fail "$1: $(last_error)"
}

fail_full() {
  reason=$(grep -iE 'no space|disk full|quota' "$errors" | head -n 1)
  fail "the volume at $volume is full or its quota is used up (${reason:-$(last_error)}); installing takes 1.3 GB, or \
8 GB with CUDA"
}

# --- fetching ---

# fetch URL FILE: goes on at the end of what FILE holds.
fetch() {
  tries=0 size=0 watched=$2
  while [ "$tries" -lt 5 ]; do
    run curl --fail --silent --show-error --location --connect-timeout 20 --speed-limit 1000 --speed-time 30 \
      --continue-at - --output "$2" "$1" && return
    case $status in
      22) # an HTTP status; 416: FILE has everything already
        if grep -q 'error: 416' "$errors"; then return; fi
        if ! grep -qE 'error: (408|429|5..)' "$errors"; then fail "cannot fetch $1: $(last_error)"; fi ;;
      23) fail_full ;;
      33 | 36) rm -f "$2" ;; # the server cannot begin in the middle
      37) fail "cannot fetch $1: $(last_error)" ;;
    esac
    before=$size size=$(stat -c %s "$2" 2>/dev/null || echo 0)
    if [ "$size" -gt "$before" ]; then tries=0; fi
    tries=$((tries + 1))
    say WARN "$doing: $(last_error); trying again"
    sleep "$tries"
  done
  fail "no network, or the server does not answer: cannot fetch $1 ($(last_error))"
}

# download URL SUM: into downloads/SUM, which is there only when it is right.
download() {
  file=$home/downloads/$2 part=$home/downloads/$2.$lease resumed=no
  if [ -e "$file" ]; then return; fi
  for old in "$file".*; do
    if [ ! -e "$old" ] || [ "$old" = "$part" ]; then continue; fi
    # A copy: whoever began it may still be writing to it.
    must "cannot go on with $old" cp "$old" "$part"
    rm -f "$old"
  done
  if [ -e "$part" ]; then
    resumed=yes
    say INFO "$doing: going on after $(($(stat -c %s "$part") / 1000000)) MB"
  fi
  fetch "$1" "$part"
  sum_of "$part"
  if [ "$found" != "$2" ] && [ "$resumed" = yes ]; then
    say WARN "$doing: what was fetched earlier is damaged; fetching it anew"
    rm -f "$part"
    fetch "$1" "$part"
    sum_of "$part"
  fi
  if [ "$found" != "$2" ]; then
    rm -f "$part"
    fail "$1 has the sha256 $found, and $2 is wanted: it is another file, or damaged"
  fi
  soon mv "$part" "$file"
}

sum_of() { # FILE: in $found
  watched=''
  must "cannot read $1" sh -c 'sha256sum "$1" >"$2"' sh "$1" "$work/sum"
  found=$(cut -d ' ' -f 1 "$work/sum")
}

# find_wheel NAME SUM: where the index has it, in $url.
find_wheel() {
  page=${index%/}/$1/
  rm -f "$work/page"
  fetch "$page" "$work/page"
  url=$(tr '>' '\n' <"$work/page" | sed -n "s/.*href=\"\([^\"#]*\)#sha256=$2\".*/\1/p" | sed 's/&amp;/\&/g; 1q')
  case $url in
    '') fail "$page lists no wheel with the sha256 $2, which this release of limner wants" ;;
    *://*) ;;
    /*) url=$(printf %s "$page" | sed 's|^\([a-z]*://[^/]*\)/.*|\1|')$url ;;
    *) url=$page$url ;;
  esac
}

# --- installing ---

unpack_wheel() { # WHEEL LIST FOLDER: those libraries of LIST that it holds
  set -f
  # shellcheck disable=SC2046  # one pattern per word
  unzip -joq "$1" $(sed 's|^[^ ]*  |*/lib/|' "$2") -d "$3" || [ $? -eq 11 ] # 11: it holds none
}

sync_files() { find "$1" -type f -exec sync {} +; }

install_libtorch() {
  lists=$work/release/share/limner/libtorch
  libtorch=$home/libtorch/$(sha256sum <"$lists/files.sha256" | cut -c 1-16)
  if [ -e "$libtorch/installed" ]; then
    soon touch "$libtorch/installed"
    return
  fi
  while read -r name version wheel; do
    doing="fetching $name $version"
    if [ ! -e "$home/downloads/$wheel" ]; then
      find_wheel "$name" "$wheel"
      say INFO "$doing"
      download "$url" "$wheel"
    fi
  done <"$lists/wheels.txt"
  say INFO "unpacking libtorch"
  soon mkdir -p "$work/libtorch/lib"
  while read -r name version wheel; do
    must "cannot unpack $name" unpack_wheel "$home/downloads/$wheel" "$lists/files.sha256" "$work/libtorch/lib"
  done <"$lists/wheels.txt"
  must "the wheels hold other libraries than this release of limner was built with" \
    sh -c 'cd "$1" && sha256sum --check --strict --quiet "$2" 2>&1 >&2' sh "$work/libtorch/lib" "$lists/files.sha256"
  must "cannot write to the volume" sync_files "$work/libtorch"
  beat
  rm -rf "$libtorch" # without its stamp: somebody was killed here
  soon mv "$work/libtorch" "$libtorch"
  soon touch "$libtorch/installed"
}

check_variables() {
  if [ ${#sum} -ne 64 ] || [ -n "$(printf %s "$sum" | tr -d 0-9a-f)" ]; then
    fail "LIMNER_RELEASE_SHA256 must be the sha256 of limner's archive, 64 hex digits; it is '$sum'"
  fi
  if [ -z "${LIMNER_RELEASE_URL:-}" ]; then
    fail "this release of limner is not on the volume yet, and LIMNER_RELEASE_URL does not say where its archive is"
  fi
}

install() {
  work=$home/work.$lease errors=$(mktemp)
  soon mkdir -p "$work/release"
  doing="fetching limner"
  say INFO "installing limner onto the volume at $volume"
  download "$LIMNER_RELEASE_URL" "$sum"
  must "cannot unpack limner" tar --extract --gzip --no-same-owner --strip-components 1 --file "$home/downloads/$sum" \
    --directory "$work/release"
  must "limner's archive does not match its own manifest" \
    sh -c 'cd "$1" && sha256sum --check --strict --quiet manifest.sha256 2>&1 >&2' sh "$work/release"
  install_libtorch
  soon ln -s "../../libtorch/${libtorch##*/}" "$work/release/libtorch"
  must "cannot write to the volume" sync_files "$work/release"
  beat
  rm -rf "$release"
  soon mv "$work/release" "$release"
  tidy
  soon touch "$release/installed"
  say INFO "limner is installed"
}

# What others left half-done, and what was fetched.
tidy() {
  for old in "$home"/work.* "$home"/downloads/*; do rm -rf "$old"; done
  for old in "$home"/leases/*; do
    if [ "${old##*/}" -lt "$lease" ]; then rm -rf "$old"; fi
  done
}

# Versions that nothing started for a week, and that no process on this machine holds.
remove_old() {
  for old in "$home"/releases/* "$home"/libtorch/*; do
    if [ "$old" = "$release" ] || [ -z "$(find "$old/installed" -mtime +6 2>/dev/null)" ]; then continue; fi
    # Of libtorch: one that no version links to.
    case $old in
      "$home"/libtorch/*)
        if readlink "$home"/releases/*/libtorch | grep -q "/${old##*/}\$"; then continue; fi ;;
    esac
    if flock --nonblock "$old/installed" true 2>/dev/null || [ $? -ne 1 ]; then
      say INFO "removing ${old#"$home"/}, unused for a week"
      gone=$home/work.old-${old##*/}
      mv "$old" "$gone" && rm -rf "$gone"
    fi
  done
}

# --- starting ---

if [ ! -d "$volume" ] || { [ -z "${LIMNER_VOLUME:-}" ] && ! mountpoint -q "$volume"; }; then
  fail "no volume is mounted at $volume: attach a network volume to the endpoint, or set LIMNER_VOLUME to where it is"
fi
if ! is_installed; then
  check_variables
  trap stop TERM INT HUP
  wait_for_turn
  if [ -n "$lease" ]; then
    install
    hand_back
  fi
  exec 9>&-
  trap - TERM INT HUP
fi
touch "$release/installed" 2>/dev/null || true
remove_old
# Held for limner's life: remove_old leaves a version alone that runs.
exec 8<"$release/installed"
flock --shared --nonblock 8 || true

export LIMNER_VOLUME="$volume" LIMNER_RUNPOD_VOLUME="$volume"
export LIMNER_MODELS="${LIMNER_MODELS:-$volume/models}"
export LIMNER_CACHE="${LIMNER_CACHE:-$home/cache}"
export VIPSHOME="$release/lib"
if [ $# -eq 0 ]; then set -- runpod; fi
# The database of `limner serve` must not be shared by workers.
if [ "$1" = serve ]; then data=/var/lib/limner; else data=$home/data; fi
export LIMNER_DATA_DIR="${LIMNER_DATA_DIR:-$data}"
unset LIMNER_RELEASE_URL LIMNER_RELEASE_SHA256
exec "$release/bin/limner" "$@"
