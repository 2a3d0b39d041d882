"""A monitor's whole life, in the order of things: start, tend, take down, and again where that was asked for.

    begin ─▶ tend ─ a second later ─▶ a small interpreter: go_on ─▶ tend ─┐
      ▲       └────────── its command has ended ──────────────────────────┤
      └── back-off, where it is to be restarted ◀─ take down, note how ◀──┘

What a start needs is on disk (record.json, config.json), so it can be made from the container's id alone. The small
interpreter imports this, too: the engine comes in when the container has ended, and not before.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the C half: without enum, which is most of a megabyte
import os
import select
import time

from ..runtime import attach, monitor
from . import questions

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from typing import Any

    from ..network import nat, relay
    from . import containers

GRACE = 10  # seconds between the stop signal and SIGKILL, where the monitor itself is asked to end
PATIENCE = 1.0  # seconds that a container must have run before its monitor is worth replacing by a smaller one
LEAST, MOST = 0.1, 60.0  # seconds until a restart: the first back-off, and the one that doubling ends at
STEADY = 10.0  # who has run so many seconds begins at the first one again


class Keeper:
    """One monitor; `lock` is the descriptor that holds the container's journal, -1 before it is taken."""

    def __init__(self, identifier: str, stage: attach.Stage, lock: int = -1) -> None:
        self.identifier = identifier
        self.stage = stage
        self.lock = lock
        self.ports: list[nat.Held] = []  # what keeps published ports, opened by the interpreter before this one
        self.relayed: list[relay.Listener] = []  # those of them that lead to the container, or nowhere, through us
        self.gate = -1  # an epoll of these, and of all that the relay has opened
        self.relay: relay.Relay | None = None  # made when somebody comes
        self.questions: questions.Questions | None = None  # about names, where it is in a network
        self.report: socket.socket | None = None  # who wants to hear of each step
        self.back_off = LEAST
        self.since = 0.0  # when it started, on the monotonic clock
        self.stop_signal = int(signal.SIGTERM)
        self.attached = False  # whoever asked for the start gets its output: told to who follows `events`
        self.watcher = 0  # the pid of who looks after its health, our child; 0 where nobody does
        stage.answering = self.answer
        stage.leading = self.lead
        self.leaving = False  # the machine goes down, or our service: end it, and let it come back another time

    def begin(self, engine: containers.Containers, planned: containers.Start) -> None:
        """Perform a start. What went wrong is raised, with all taken down: the container is Created then, or gone."""
        record = planned.record
        self.stage.open(record["stdin"], record["tty"])
        values: dict[str, Any] = {}
        try:
            monitor.start(planned.plan, values, self.report)
            try:
                self.started(engine, record, values)
            except BaseException:
                monitor.kill(values["pid"])
                self.let_go()
                raise
        except BaseException as error:
            if self.lock >= 0 or "lock" in values:  # else it is somebody else's to take down
                self.tell_attached(engine, record)
                monitor.take_down(engine.after_failure(record, error), self.report)
            raise

    def started(self, engine: containers.Containers, record: dict[str, Any], values: dict[str, Any]) -> None:
        """The command runs: note it, and look after it from now on."""
        self.lock = values.get("lock", self.lock)
        self.stop_signal = record["stop_signal"]
        self.since = time.monotonic()
        self.tell_attached(engine, record)
        place = engine.note_started(record, values)
        if self.stage.listener < 0:
            self.stage.listen(place)
        self.stage.began(values["pid"], values.get("master"), record["stdin"])
        if record["ports"]:
            self.receive(engine.leads_to(record, values))
        if "questions" in values:
            self.questions = questions.Questions(self.identifier, self.stage.guests, *values["questions"])
        if record["config"].get("Healthcheck"):
            from . import health

            self.watcher = health.begin(engine, record)

    def answer(self, udp: int, tcp: int) -> bool:
        """It was in no network, and has been plugged into one: its questions come here. False if it asks already."""
        if self.questions:
            return False
        self.questions = questions.Questions(self.identifier, self.stage.guests, udp, tcp)
        return True

    def tell_attached(self, engine: containers.Containers, record: dict[str, Any]) -> None:
        """Note once, before the start, that somebody is attached."""
        if self.attached:
            engine.note("attach", record)
        self.attached = False

    def lead(self, address: str) -> None:
        """It has been plugged in or out: its ports lead there from now on, or nowhere. Who was relayed is cut off."""
        self.hang_up()
        self.receive(address)

    def receive(self, address: str) -> None:
        """From now on look whether somebody comes to a port that we relay to the container, or send away."""
        from ..network import nat

        self.relayed = nat.relayed(self.ports or nat.held(self.identifier), address)
        if self.relayed:
            gate = select.epoll()
            for descriptor, *_ in self.relayed:
                os.set_blocking(descriptor, False)
                gate.register(descriptor, select.EPOLLIN)
            self.gate = os.dup(gate.fileno())
            self.stage.guests[self.gate] = self.pass_on

    def pass_on(self) -> None:
        """Somebody has come, or a connection has something to be passed on."""
        if self.relay is None:
            from ..network import relay

            self.relay = relay.Relay(self.gate, self.relayed)
        self.relay.attend()

    def hang_up(self) -> None:
        """Nobody is relayed to the container any more."""
        if self.relay:
            self.relay.end()
        if self.gate >= 0:
            self.stage.guests.pop(self.gate, None)  # it was asked no more if it has failed
            os.close(self.gate)
        self.relayed, self.gate, self.relay = [], -1, None

    def tend(self, renewed: bool) -> int:
        """Until the command has ended: its exit code. An interpreter that is not `renewed` yet is, after a while."""
        before = signal.signal(signal.SIGTERM, self.leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        status = self.stage.serve(-1 if renewed or self.report else PATIENCE)
        signal.signal(signal.SIGTERM, before)
        signal.alarm(0)
        if status is None:
            from ..network import nat

            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # execve keeps that, and what comes meanwhile
            ports = nat.held(self.identifier)
            asked = self.questions.descriptors() if self.questions else []
            for descriptor in (self.lock, *(port[0] for port in ports), *({self.gate} - {-1}), *asked):
                os.set_inheritable(descriptor, True)
            own = {"stage": self.stage.state(), "lock": self.lock, "ports": ports}
            own |= {"relayed": self.relayed, "gate": self.gate, "relay": self.relay.state() if self.relay else None}
            own |= {"back_off": self.back_off, "since": self.since, "stop_signal": self.stop_signal}
            own |= {"watcher": self.watcher, "questions": asked}
            monitor.renew(__name__, "go_on", self.identifier, own)
        return monitor.exit_code(status)

    def leave(self, *_: object) -> None:
        """SIGTERM to the monitor: ask its container to end; kill it after as long as `stop` waits."""
        self.leaving = True
        signal.signal(signal.SIGALRM, lambda *_: self.stage.send_signal(signal.SIGKILL))
        signal.alarm(GRACE)
        self.stage.send_signal(self.stop_signal)

    def end(self, engine: containers.Containers, code: int) -> bool:
        """Take down what has ended, and wait where it is to be restarted. Whether it still is."""
        record = engine.load(self.identifier)
        engine.note("die", record, exitCode=str(code))
        self.let_go()
        again = not (self.stage.stopping or self.leaving) and engine.restarts(record, code)
        monitor.take_down(engine.after_end(record, code, again, self.stage.stopping), self.report)
        if not again:
            return False
        self.stage.tell({"ended": code})
        if time.monotonic() - self.since >= STEADY:
            self.back_off = LEAST
        self.stage.idle(self.back_off)
        self.back_off = min(2 * self.back_off, MOST)
        if self.stage.stopping:
            monitor.take_down(engine.after_end(engine.load(self.identifier), code, False, True), self.report)
            return False
        return True

    def restart(self, engine: containers.Containers) -> None:
        """Start it once more; raises as `begin` does."""
        try:
            planned = engine.plan_restart(self.identifier)
        except Exception as error:  # its network has gone meanwhile, or whose network it was in
            monitor.take_down(engine.after_failure(engine.load(self.identifier), error), self.report)
            raise
        self.begin(engine, planned)

    def let_go(self) -> None:
        """End what looks after a running container: the watcher of its health, relay, questions, published ports."""
        if self.watcher:
            os.kill(self.watcher, signal.SIGKILL)
            os.waitpid(self.watcher, 0)
            self.watcher = 0
        self.hang_up()
        if self.questions:
            self.questions.close()
            self.questions = None
        for descriptor, *_ in self.ports:
            os.close(descriptor)
        self.ports = []

    def finish(self, code: int) -> None:
        """Let go of the journal, so that whoever hears of the end may start it again at once; then say so."""
        os.close(self.lock)
        self.stage.finish({"exited": code})


def live(
    engine: containers.Containers, planned: containers.Start, end: socket.socket, audience: bool, explain: bool
) -> None:
    """Be the monitor of this start: from here to the container's last end. With `audience`, `end` is attached."""
    record = planned.record
    stage = attach.Stage(engine.log_writer(record))
    stage.once = record["stdin"] and audience
    stage.clients.append(attach.Client(end, takes=audience, gives=stage.once))
    keeper = Keeper(record["id"], stage)
    keeper.report = end if explain else None
    keeper.attached = audience
    keeper.begin(engine, planned)
    if not audience:
        stage.introduce(stage.clients[0])
    go_round(keeper, engine, renewed=False)


def go_round(keeper: Keeper, engine: containers.Containers | None, renewed: bool) -> None:
    """Tend the running container, and start it again as often as its restart policy says."""
    while True:
        code = keeper.tend(renewed)
        if engine is None:
            from . import client

            engine = client.Client().containers
        if not keeper.end(engine, code):
            keeper.finish(code)
            return
        try:
            keeper.restart(engine)
        except Exception:  # noted in its record; who looks on hears of the exit code
            keeper.finish(engine.load(keeper.identifier).get("exit_code", code))
            return
        renewed = False


def go_on(identifier: str, descriptor: str) -> None:
    """The small interpreter: the same monitor, with little but its descriptors."""
    own = monitor.handed(int(descriptor))
    keeper = Keeper(identifier, attach.restored(own["stage"]), own["lock"])
    keeper.back_off, keeper.since, keeper.stop_signal = own["back_off"], own["since"], own["stop_signal"]
    keeper.ports, keeper.watcher = own["ports"], own["watcher"]
    keeper.relayed, keeper.gate = own["relayed"], own["gate"]
    for kept in (keeper.lock, *(port[0] for port in keeper.ports), *({keeper.gate} - {-1}), *own["questions"]):
        os.set_inheritable(kept, False)
    if keeper.gate >= 0:
        keeper.stage.guests[keeper.gate] = keeper.pass_on
    if own["questions"]:
        keeper.questions = questions.Questions(identifier, keeper.stage.guests, *own["questions"])
    if own["relay"]:
        from ..network import relay

        keeper.relay = relay.Relay(keeper.gate, keeper.relayed, own["relay"])
    try:
        go_round(keeper, None, renewed=True)
    finally:
        os._exit(0)


def main(identifier: str, audience: str, root: str) -> None:
    """A fresh interpreter: start the container of that id; the client is at descriptor 3."""
    os.environ["MINICONTAINER_ROOT"] = root

    def work(end: socket.socket) -> None:
        from . import client

        engine = client.Client().containers
        live(engine, engine.plan_start(identifier), end, audience == "attached", explain=False)

    try:
        monitor.perform(work, monitor.CHANNEL)
    finally:
        os._exit(0)
