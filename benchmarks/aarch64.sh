#!/usr/bin/env bash
# Whether the wheel answers on aarch64 as it does here: Debian for arm64, emulated by QEMU.
#
# Run, as root on Debian or Ubuntu, with a network: benchmarks/aarch64.sh [BUNDLE] [IMAGES]
#
# BUNDLE is a bundle with a float32 artifact, by default the frozen one of the tests; the shipped
# pneumonia-cxr is always answered too. IMAGES is a folder of images, answered beside the golden
# inputs of both. On each processor of CPUS it runs `verify` and `infer`, and same_answers.py
# compares with this machine. Exit 1 if anything differs. An emulation says nothing about speed.
set -euo pipefail

CPUS=${CPUS:-cortex-a53 cortex-a72 cortex-a76} # Raspberry Pi 3, 4, 5
SUITE=bookworm                                 # has the Python that DEVICE_PYTHON is
DEVICE_PYTHON=311

repository=$(cd "$(dirname "$0")/.." && pwd)
bundle=${1:-$repository/tests/data/frozen-bundle}
images=${2:-}
settings=(LANG=C.UTF-8 ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1)
declare -A folders=([pneumonia-cxr]=$repository/medimg_edge/models/pneumonia-cxr [bundle]=$bundle)

refuse() { echo "aarch64.sh: $*" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || refuse "root is needed, for debootstrap, mount and chroot; run it by sudo."
grep --quiet --invert-match -e ' lo:' -e '|' /proc/net/dev ||
  refuse "there is no network but the machine's own; Debian and the wheels come from one."
[ -f "$bundle/manifest.json" ] || refuse "$bundle is no bundle: it has no manifest.json."
[ -z "$images" ] || [ -d "$images" ] || refuse "$images is no folder."

work=$(mktemp --directory)
root=$work/root
doing=starting
step() { doing=$*; echo "== $doing"; }

finish() {
  local status=$?
  # Mounts were made in the namespaces of processes that have ended: there is nothing to unmount.
  rm --recursive --force --one-file-system "$work"
  [ "$status" -eq 0 ] || echo "aarch64.sh: exit $status while $doing" >&2
}
trap finish EXIT
trap 'exit 130' INT TERM

# What /proc/cpuinfo says on CPU, a block for each core: ONNX Runtime reads this machine's otherwise.
cpuinfo() {
  local features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid" part core
  case $1 in
    cortex-a53) part=0xd03 ;;
    cortex-a72) part=0xd08 ;;
    cortex-a76) part=0xd0b features+=" atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp" ;;
    *) refuse "the part number of $1 is not known here." ;;
  esac
  for ((core = 0; core < $(nproc --all); core++)); do
    printf 'processor\t: %s\nFeatures\t: %s\nCPU implementer\t: 0x41\n' "$core" "$features"
    printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 0\n\n' "$part"
  done
}

# emulated CPU PROGRAM ARGUMENT...: in the arm64 root, without a network. It starts one program, not
# what that would start: the kernel need not know the format (binfmt_misc).
emulated() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  env --ignore-environment PATH="$PATH" HOME=/root "${settings[@]}" \
    unshare --mount --net bash -euc '
      root=$1 cpu=$2; shift 2
      mount -t proc proc "$root/proc"
      mount -t sysfs -o ro sysfs "$root/sys"
      mount --bind "$root/cpuinfo.$cpu" "$root/proc/cpuinfo"
      exec chroot "$root" /qemu -cpu "$cpu" "$@"' -- "$root" "$@"
}

# answer MACHINE COMMAND...: verify and infer by COMMAND (python), in $root, for MACHINE.
answer() {
  local machine=$1 out=answers/$1 name model
  shift
  for name in "${!folders[@]}"; do
    mkdir -p "$root/$out/$name"
    "$@" -m medimg_edge.cli verify "$name" || echo "$name on $machine" >>"$work/refused"
    for model in "${folders[$name]}"/*.onnx; do
      model=$(basename "$model")
      "$@" -m medimg_edge.cli --quiet infer images --bundle "$name" --artifact "$model" \
        --profile none --out "$out/$name/$model.jsonl" || [ $? -eq 1 ] # 1: one was rejected
    done
    "$@" same_answers.py pixels "$name" images "$out/$name/pixels.npz"
  done
}

here() (
  cd "$root"
  env --ignore-environment PATH="$PATH" HOME="$work" "${settings[@]}" "$work/host/bin/python" "$@"
)

if ! command -v debootstrap qemu-aarch64-static make >"$work/found"; then
  step "installing debootstrap, qemu-user-static and make (needs a network; they stay)"
  apt-get update --quiet=2
  apt-get install --yes --quiet=2 --no-install-recommends debootstrap qemu-user-static make
fi

step "building the wheel, and downloading what it needs for aarch64 (needs a network)"
mkdir "$work/source"
(cd "$repository" && cp -a Makefile README.md LICENSE THIRD_PARTY_NOTICES.md pyproject.toml \
  constraints.txt medimg_edge export "$work/source")
python3 -m venv "$work/host"
"$work/host/bin/pip" install --quiet build
make --silent -C "$work/source" wheelhouse VENV="$work/host" --old-file="$work/host/.ready" \
  DEVICE_PLATFORM=aarch64 DEVICE_PYTHON=$DEVICE_PYTHON

step "installing the same wheel here (needs a network)"
"$work/host/bin/pip" install --quiet --constraint "$work/source/constraints.txt" \
  "$work"/source/dist/medimg_edge-*.whl

step "making a Debian $SUITE for arm64 (needs a network)"
debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,python3-venv \
  "$SUITE" "$root" >"$work/debootstrap.log" || { tail "$work/debootstrap.log" >&2; exit 1; }
for package in "$root"/var/cache/apt/archives/*.deb; do # unpacked; nothing of it has to be set up
  dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$root"
done
rm --force --dir "$root/proc" "$root/sys" # in a container debootstrap links them to its own
mkdir "$root/proc" "$root/sys"
cp "$(command -v qemu-aarch64-static)" "$root/qemu"
for cpu in $CPUS; do cpuinfo "$cpu" >"$root/cpuinfo.$cpu"; done

step "installing the wheel there, without a network"
cp -r "$work/source/wheelhouse" "$root/wheelhouse"
emulated "${CPUS%% *}" /usr/bin/python3 -m venv --without-pip /device
pip=$(cd "$root" && echo usr/share/python-wheels/pip-*.whl)
emulated "${CPUS%% *}" /device/bin/python "$pip/pip" \
  install --quiet --no-index --find-links wheelhouse medimg-edge

cp -r "$bundle" "$root/bundle"
cp "$repository/benchmarks/same_answers.py" "$root"
mkdir "$root/images"
for name in "${!folders[@]}"; do
  mkdir "$root/images/$name"
  find "${folders[$name]}/golden" -type f ! -name '*.pixels' -exec cp -t "$root/images/$name" {} +
done
[ -z "$images" ] || cp -rL "$images" "$root/images/given"

step "answering here"
answer here here
for cpu in $CPUS; do
  step "answering on an emulated $cpu"
  answer "$cpu" emulated "$cpu" /device/bin/python
done

step "comparing"
qemu-aarch64-static --version | head -1
echo "Debian $(cat "$root/etc/debian_version")"
emulated "${CPUS%% *}" /device/bin/python same_answers.py versions
# shellcheck disable=SC2086 # the words of CPUS
(cd "$root/answers" && "$work/host/bin/python" "$root/same_answers.py" compare here $CPUS) ||
  touch "$work/differ"
[ ! -e "$work/refused" ] || sed 's/^/verify refuses: /' "$work/refused"
[ ! -e "$work/differ" ] && [ ! -e "$work/refused" ]
