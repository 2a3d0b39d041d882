"""Grading for marks: every submission in a container of ours, its results in files that only the grader writes.

    submissions.py   what students handed in, read as text
    cell.py          the container that a student's code runs in
    work.py          one student, one lab: one pytest; and many of them at a time
    records.py       what is kept of it
    outputs.py       … as learning platforms and students want it; similar.py, page.py … as an instructor does
    slurm.py         the same on many machines

What a run keeps, below --out. Everything in outputs is made anew from the rest at the end of each `grade`:

    results/STUDENT/06_overlay.jsonl    {"student", "number", "lab", "seed", "host", "tier", "uid", "outline", "began"}
                                        {"test", "title", "lab", "points", "of", "outcome", "hint", "seconds"}  …
                                        {"finished", "seconds", "ended": "" or why early, "defect": a fault of ours}
                    06_overlay.py       the text that was graded; absent where none could be read
    hosts/HOST/06_overlay.jsonl         the lab's tests and what this host cannot grade: the same of the lab's stub.
                                        A result's outline is what stood here when it was made
    overrides.jsonl                     {"student", "lab", "points", "reason", "when"}
    merged/STUDENT.json                 tests graded elsewhere, [{"lab", "test", "points", "of", "outcome", "hint"}]
    secret                              what seeds are made from
    roster.csv                          the gradebook that was named last, which canvas.csv is made from
    outputs: index.html  junit.xml  canvas.csv  nbgrader.csv  gradescope/STUDENT.json  feedback/STUDENT.md

`outcome` is passed or failed, which count; "not gradable here", whose hint names what the host lacks; "not graded",
where our own pytest broke down. The latter two are never zeros: they leave the lab unfinished, and say so everywhere.

A student's results get that name only once finished. So `grade` with the same --out does what is missing; and makes
anew what an earlier run could not grade wholly, where this host can grade more of it and no less.
"""
