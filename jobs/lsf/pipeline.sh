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
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)

convert=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Convert the sources, one data set a task. Submitted from the folder of study.toml.
#BSUB -J "m1-convert[1-3]"
#BSUB -o runs/logs/m1-convert_%J_%I.out
#BSUB -e runs/logs/m1-convert_%J_%I.err
#BSUB -q hpc
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=4096MB]"
#BSUB -W 02:00
#BSUB -wa USR2 -wt 5
#BSUB -Q "75"
#BSUB -r
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage convert --task "$LSB_JOBINDEX" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | bsub
)
convert=${convert#*<} convert=${convert%%>*}
echo "convert $convert"

train=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Train the encoders, one run a task. Submitted from the folder of study.toml.
#BSUB -J "m1-train[1-4]"
#BSUB -o runs/logs/m1-train_%J_%I.out
#BSUB -e runs/logs/m1-train_%J_%I.err
#BSUB -q gpuv100
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=4096MB]"
#BSUB -gpu "num=1:mode=exclusive_process"
#BSUB -W 04:00
#BSUB -wa USR2 -wt 5
#BSUB -Q "75"
#BSUB -r
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage train --task "$LSB_JOBINDEX" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | bsub -w "done($convert)" -ti
)
train=${train#*<} train=${train%%>*}
echo "train $train"

crossval=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Cross-validation, one fold of one repeat a task. Submitted from the folder of study.toml.
#BSUB -J "m1-crossval[1-5]%5"
#BSUB -o runs/logs/m1-crossval_%J_%I.out
#BSUB -e runs/logs/m1-crossval_%J_%I.err
#BSUB -q hpc
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=4096MB]"
#BSUB -W 02:00
#BSUB -wa USR2 -wt 5
#BSUB -Q "75"
#BSUB -r
set -eo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
set -u
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage crossval --task "$LSB_JOBINDEX" &
child=$!

# shellcheck disable=SC2317  # called by the trap
warn() { kill -USR1 "$child"; }
status=
JOB
echo "$ending"
} | bsub -w "done($convert) && done($train)" -ti
)
crossval=${crossval#*<} crossval=${crossval%%>*}
echo "crossval $crossval"

gather=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Gather the folds, test, write report.html. Submitted from the folder of study.toml.
#BSUB -J m1-gather
#BSUB -o runs/logs/m1-gather_%J.out
#BSUB -e runs/logs/m1-gather_%J.err
#BSUB -q hpc
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=4096MB]"
#BSUB -W 02:00
#BSUB -wa USR2 -wt 5
#BSUB -Q "75"
#BSUB -r
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
} | bsub -w "done($crossval)" -ti
)
gather=${gather#*<} gather=${gather%%>*}
echo "gather $gather"

generate=$(
{
cat <<'JOB'
#!/usr/bin/env bash
# Generate synthetic samples and score them. Submitted from the folder of study.toml.
#BSUB -J m1-generate
#BSUB -o runs/logs/m1-generate_%J.out
#BSUB -e runs/logs/m1-generate_%J.err
#BSUB -q hpc
#BSUB -n 2
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=4096MB]"
#BSUB -W 02:00
#BSUB -wa USR2 -wt 5
#BSUB -Q "75"
#BSUB -r
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
} | bsub -w "done($convert) && done($train)" -ti
)
generate=${generate#*<} generate=${generate%%>*}
echo "generate $generate"
