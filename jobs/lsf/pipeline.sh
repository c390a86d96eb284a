#!/usr/bin/env bash
# Submit every stage of study.toml, each after those that it needs. Run it in
# the folder of that file; it prints the stages and the numbers of their jobs.
set -euo pipefail
mkdir -p runs/logs

convert=$(bsub <<'JOB'
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
set -euo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage convert --task "$LSB_JOBINDEX" &
child=$!

# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; kill -USR1 "$child" || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)
convert=${convert#*<} convert=${convert%%>*}
echo "convert $convert"

train=$(bsub -w "done($convert)" -ti <<'JOB'
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
set -euo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage train --task "$LSB_JOBINDEX" &
child=$!

# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; kill -USR1 "$child" || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)
train=${train#*<} train=${train%%>*}
echo "train $train"

crossval=$(bsub -w "done($convert) && done($train)" -ti <<'JOB'
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
set -euo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage crossval --task "$LSB_JOBINDEX" &
child=$!

# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; kill -USR1 "$child" || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)
crossval=${crossval#*<} crossval=${crossval%%>*}
echo "crossval $crossval"

gather=$(bsub -w "done($crossval)" -ti <<'JOB'
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
set -euo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage gather &
child=$!

# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; kill -USR1 "$child" || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)
gather=${gather#*<} gather=${gather%%>*}
echo "gather $gather"

generate=$(bsub -w "done($convert) && done($train)" -ti <<'JOB'
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
set -euo pipefail

# shellcheck source=/dev/null
source venv/bin/activate
export OMP_NUM_THREADS=2

m1pipe run study.toml --stage generate --stage quality &
child=$!

# A warning is passed on: the command saves its state at the next step, leaves with 75.
warned=
trap 'warned=yes; kill -USR1 "$child" || true' USR1 USR2
trap 'kill -TERM "$child" || true' TERM INT
while true; do
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || break
done
# After a warning the work goes on in another start: -Q requeues what leaves with 75.
if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi
exit "$code"
JOB
)
generate=${generate#*<} generate=${generate%%>*}
echo "generate $generate"
