"""Starts the servers that a test program talks to, runs it, and stops them.

  run.py PROGRAM [ARGUMENTS...]

An S3 server (s3proxy from Maven Central, fetched once into .cache/services) with a bucket `limner`, and a Supabase-like
storage server (fake_supabase.py), each behind a proxy that can fail on demand (fault_proxy.py); a webhook receiver
(webhook_receiver.py). The program finds them by LIMNER_TEST_S3, LIMNER_TEST_SUPABASE and LIMNER_TEST_WEBHOOKS, and by
LIMNER_TEST_S3_DIRECT what lies behind the proxy. Exits with the program's status, or with 77 (skipped) when the S3
server cannot be fetched.

With VERSITYGW=PROGRAM the S3 server is that versitygw, the strictest one
(go install github.com/versity/versitygw/cmd/versitygw@v1.8.0).
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from fake_supabase import FakeSupabase
from fault_proxy import FaultProxy
from webhook_receiver import WebhookReceiver

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIBRARIES = ROOT / ".cache" / "services" / "s3proxy-3.0.0"
SKIPPED = 77
HOST = "localhost"  # s3proxy takes any other name for a bucket's own
JAVA_FLAGS = ["-Xms64m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]


def skip(why: str) -> None:
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def fetch_libraries() -> None:
    if LIBRARIES.is_dir():
        return
    for tool in ("java", "mvn"):
        if not shutil.which(tool):
            skip(f"no {tool} here; install openjdk-17-jdk-headless and maven")
    LIBRARIES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBRARIES.parent) as folder:
        fetched = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(pathlib.Path(__file__).parent / "pom.xml"), "dependency:copy-dependencies",
             f"-DoutputDirectory={folder}/libs", "-DincludeScope=runtime"], capture_output=True, text=True)
        if fetched.returncode != 0:
            skip("Maven Central gives no s3proxy: " + fetched.stdout.strip()[-300:])
        os.rename(f"{folder}/libs", LIBRARIES)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def s3proxy_command(folder: pathlib.Path, port: int) -> list[str]:
    fetch_libraries()
    (folder / "s3proxy.conf").write_text(
        f"s3proxy.endpoint=http://127.0.0.1:{port}\n"
        "s3proxy.authorization=aws-v4\n"
        "s3proxy.ignore-unknown-headers=true\n"
        f"s3proxy.virtual-host={HOST}\n"
        "s3proxy.identity=limner\n"
        "s3proxy.credential=limnersecret\n"
        "jclouds.provider=filesystem-nio2\n"
        "jclouds.identity=x\n"
        "jclouds.credential=x\n"
        f"jclouds.filesystem.basedir={folder}/data\n")
    (folder / "logback.xml").write_text('<configuration><root level="OFF"/></configuration>\n')
    return ["java", *JAVA_FLAGS, f"-Dlogback.configurationFile={folder}/logback.xml", "-cp", f"{LIBRARIES}/*",
            "org.gaul.s3proxy.Main", "--properties", str(folder / "s3proxy.conf")]


def versitygw_command(folder: pathlib.Path, port: int) -> list[str]:
    return [os.environ["VERSITYGW"], "--port", f"127.0.0.1:{port}", "--region", "us-east-1", "--quiet",
            "--virtual-domain", HOST, "--access", "limner", "--secret", "limnersecret", "posix", str(folder / "data")]


def start_s3(folder: pathlib.Path, port: int) -> subprocess.Popen:
    (folder / "data" / "limner").mkdir(parents=True)
    command = versitygw_command if os.environ.get("VERSITYGW") else s3proxy_command
    server = subprocess.Popen(command(folder, port), stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"))
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    sys.exit("the S3 server does not start: " + (folder / "log").read_text()[-500:])


@contextlib.contextmanager
def s3_server():
    """An S3 server until the block ends: its port, and the folder that holds the bucket `limner`, an object a file. Key
    `limner`, secret `limnersecret`."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        server = start_s3(pathlib.Path(name), port)
        try:
            yield port, pathlib.Path(name) / "data" / "limner"
        finally:
            server.kill()  # it holds nothing that outlives the folder, and an orderly end waits for connections
            server.wait()


def main() -> None:
    with s3_server() as (port, _):
        supabase = FaultProxy(("127.0.0.1", FakeSupabase().port))
        environment = dict(os.environ, LIMNER_TEST_S3=f"http://{HOST}:{FaultProxy(('127.0.0.1', port)).port}",
                           LIMNER_TEST_S3_DIRECT=f"http://{HOST}:{port}",
                           LIMNER_TEST_SUPABASE=supabase.url,
                           LIMNER_TEST_WEBHOOKS=f"http://127.0.0.1:{WebhookReceiver().port}")
        status = subprocess.run(sys.argv[1:], env=environment).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
