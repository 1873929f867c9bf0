#!/bin/sh
# A sweep by Hydra's Ray launcher, in an environment of its own: it wants cloudpickle < 3, and brings Ray, boto3 and more.
#
#   scripts/ray_trial.sh VENV [words for igos-bench]
#
# VENV is made if it is not there, and sees the packages of .venv, torch among them, beside its own. Usage statistics
# are off. On a machine with GPUs, HYDRA_RAY_GPUS=8 gives each job one of eight.
set -eu
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
venv=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
gpus=${HYDRA_RAY_GPUS:-0}
if [ ! -x "$venv/bin/ray" ]; then
    "$root/.venv/bin/python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check 'hydra-core==1.3.8' 'hydra-ray-launcher==1.2.2'
fi
# Behind its own packages, so that these win.
"$root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/igos_bench_packages.pth"
RAY_USAGE_STATS_ENABLED=0
PYTHONPATH=$root
export RAY_USAGE_STATS_ENABLED PYTHONPATH
# A launcher of one's own in the folder of one's own YAML files: what Ray has, and what of it each job takes.
mkdir -p "$venv/conf/hydra/launcher"
cat >"$venv/conf/hydra/launcher/ray_here.yaml" <<YAML
defaults: [ray]
ray:
  init: {num_cpus: 2, num_gpus: $gpus, include_dashboard: false}
  remote: {num_cpus: 1, num_gpus: $([ "$gpus" = 0 ] && echo 0 || echo 1)}
YAML
exec "$venv/bin/python" -m igos_bench --config-dir "$venv/conf" -m hydra/launcher=ray_here "$@"
