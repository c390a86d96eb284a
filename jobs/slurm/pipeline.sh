#!/usr/bin/env bash
# Submit every stage of study.toml, each after those that it needs. Run it in
# the folder of that file; it prints the stages and the numbers of their jobs.
set -euo pipefail
mkdir -p -- runs/logs

# The end of every script: how it waits for its command.
ending=$(
cat <<'JOB'
# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; warn || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
if [ "$code" -ne 0 ] && [ -n "$status" ] &&
    grep -q '"state": "stopped"' "$status"; then code=75; fi
# After a warning the work goes on in another start of the same job.
if [ -n "$warned" ] && { [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; } &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
    # The number of an array's last element is that of the whole array.
    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
    code=75
fi
exit "$code"
JOB
)

convert=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Convert the sources, one data set a task. Submitted from the folder of study.toml.
#SBATCH --job-name=m1-convert
#SBATCH --output=runs/logs/%x_%A_%a.log
#SBATCH --open-mode=append
#SBATCH --account=my-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8192M
#SBATCH --time=02:00:00
#SBATCH --array=1-3
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage convert --task "$SLURM_ARRAY_TASK_ID" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | sbatch --parsable
)
convert=${convert%%;*}
echo "convert $convert"

train=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Train the encoders, one run a task. Submitted from the folder of study.toml.
#SBATCH --job-name=m1-train
#SBATCH --output=runs/logs/%x_%A_%a.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --account=my-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8192M
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --array=1-4
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage train --task "$SLURM_ARRAY_TASK_ID" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | sbatch --parsable --dependency="afterok:$convert" --kill-on-invalid-dep=yes
)
train=${train%%;*}
echo "train $train"

crossval=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Cross-validation, one fold of one repeat a task. Submitted from the folder of study.toml.
#SBATCH --job-name=m1-crossval
#SBATCH --output=runs/logs/%x_%A_%a.log
#SBATCH --open-mode=append
#SBATCH --account=my-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8192M
#SBATCH --time=02:00:00
#SBATCH --array=1-5%5
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage crossval --task "$SLURM_ARRAY_TASK_ID" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | sbatch --parsable --dependency="afterok:$convert:$train" --kill-on-invalid-dep=yes
)
crossval=${crossval%%;*}
echo "crossval $crossval"

gather=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Gather the folds, test, write report.html. Submitted from the folder of study.toml.
#SBATCH --job-name=m1-gather
#SBATCH --output=runs/logs/%x_%j.log
#SBATCH --open-mode=append
#SBATCH --account=my-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8192M
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage gather &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | sbatch --parsable --dependency="afterok:$crossval" --kill-on-invalid-dep=yes
)
gather=${gather%%;*}
echo "gather $gather"

generate=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Generate synthetic samples and score them. Submitted from the folder of study.toml.
#SBATCH --job-name=m1-generate
#SBATCH --output=runs/logs/%x_%j.log
#SBATCH --open-mode=append
#SBATCH --account=my-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8192M
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage generate --stage quality &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | sbatch --parsable --dependency="afterok:$convert:$train" --kill-on-invalid-dep=yes
)
generate=${generate%%;*}
echo "generate $generate"
