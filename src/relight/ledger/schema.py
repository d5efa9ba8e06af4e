"""The tables, as the migrations that make them: a ledger of schema n has had the first n.

STRICT tables are what needs SQLite 3.37; RETURNING and window functions are older. Times are microseconds since 1970.
`files` names the files of a job by role: inputs by name, results by index, checkpoints by part.
"""

from __future__ import annotations

MINIMUM_SQLITE = (3, 37, 0)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            model TEXT NOT NULL,
            owner TEXT NOT NULL,
            request TEXT NOT NULL,
            chosen TEXT NOT NULL,
            digest TEXT NOT NULL,
            priority INTEGER NOT NULL,
            key TEXT,
            predicted_seconds REAL NOT NULL,
            input_bytes INTEGER NOT NULL,
            state TEXT NOT NULL
                CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled', 'set_aside')),
            attempt INTEGER NOT NULL DEFAULT 0,
            losses INTEGER NOT NULL DEFAULT 0,
            interruptions INTEGER NOT NULL DEFAULT 0,
            worker TEXT,
            progress TEXT NOT NULL DEFAULT '{}',
            created INTEGER NOT NULL,
            started INTEGER,
            finished INTEGER,
            error_code TEXT,
            error_message TEXT,
            report TEXT NOT NULL DEFAULT '{}'
        ) STRICT
        """,
        "CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, key) WHERE key IS NOT NULL",
        "CREATE INDEX jobs_by_digest ON jobs (owner, digest)",
        "CREATE INDEX jobs_by_owner ON jobs (owner, seq)",
        "CREATE INDEX jobs_by_state ON jobs (state, priority DESC, seq)",
        """
        CREATE TABLE files (
            job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
            role TEXT NOT NULL CHECK (role IN ('input', 'checkpoint', 'result')),
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            about TEXT NOT NULL,
            PRIMARY KEY (job, role, name)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX files_by_sha256 ON files (sha256)",
    ),
)
