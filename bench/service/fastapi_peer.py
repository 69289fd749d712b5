"""The accept of a generation as one writes it with FastAPI and SQLite: what service_bench.py holds limner against.

The same promise: the key is looked up, the body is checked, and the job, its first event and its idempotency key are on
the disk (WAL, synchronous FULL) before the 202. Nothing draws the jobs.
"""

import asyncio
import hashlib
import sqlite3
import sys
import time
import uuid

import fastapi
import pydantic
import uvicorn

SCHEMA = """
pragma journal_mode = wal;
pragma synchronous = full;
create table if not exists keys (hash text primary key, account text not null);
create table if not exists jobs (id text primary key, account text not null, request text not null,
                                 status text not null, created_at real not null);
create index if not exists jobs_open on jobs (created_at) where status = 'queued';
create table if not exists events (job text not null, number integer not null, type text not null,
                                   primary key (job, number));
create table if not exists idempotency (account text not null, name text not null, fingerprint text not null,
                                        job text not null, primary key (account, name));
"""


class Generation(pydantic.BaseModel):
    prompt: str = pydantic.Field(max_length=10_000)
    width: int = pydantic.Field(ge=64, le=2048, multiple_of=8)
    height: int = pydantic.Field(ge=64, le=2048, multiple_of=8)
    steps: int = pydantic.Field(ge=1, le=150)
    seed: int | None = None


def make_app(file: str, key: str) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    database.executescript(SCHEMA)
    database.execute("insert or ignore into keys values (?, 'ann')", [hashlib.sha256(key.encode()).hexdigest()])
    lock = asyncio.Lock()

    def accept(account: str, name: str, generation: Generation) -> tuple[str, int]:
        request = generation.model_dump_json()
        fingerprint = hashlib.sha256(request.encode()).hexdigest()
        database.execute("begin immediate")
        try:
            known = database.execute("select job, fingerprint from idempotency where account = ? and name = ?",
                                     [account, name]).fetchone()
            if known and known[1] != fingerprint:
                raise fastapi.HTTPException(422, "the key was used with another body")
            job = known[0] if known else str(uuid.uuid4())
            if not known:
                database.execute("insert into jobs values (?, ?, ?, 'queued', ?)", [job, account, request, time.time()])
                database.execute("insert into events values (?, 1, 'queued')", [job])
                database.execute("insert into idempotency values (?, ?, ?, ?)", [account, name, fingerprint, job])
            position = database.execute("select count(*) from jobs where status = 'queued'").fetchone()[0]
            database.execute("commit")
            return job, position
        except BaseException:
            database.execute("rollback")
            raise

    @app.get("/readyz")
    async def ready():
        return {}

    @app.post("/v1/generations", status_code=202)
    async def generate(generation: Generation, authorization: str = fastapi.Header(),
                       idempotency_key: str = fastapi.Header()):
        hashed = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
        row = database.execute("select account from keys where hash = ?", [hashed]).fetchone()
        if not row:
            raise fastapi.HTTPException(401)
        async with lock:  # SQLite has one writer
            job, position = await asyncio.to_thread(accept, row[0], idempotency_key, generation)
        return {"request_id": job, "status": "queued", "position": position,
                "urls": {"self": f"/v1/generations/{job}"}}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2], sys.argv[3]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
