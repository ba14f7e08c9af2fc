"""How far a federation gets in each application, and how soon; see `study`.

python -m benchmarks.applications [--app hospitals] [--quick] [--seeds 1,2,3]
"""

from benchmarks.applications.study import main

if __name__ == "__main__":
    main()
