package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.steward.budget.v1.BudgetServiceGrpc;
import dev.steward.budget.v1.Control;
import dev.steward.budget.v1.DesiredState;
import dev.steward.budget.v1.ReportAck;
import dev.steward.budget.v1.ReportBatch;
import dev.steward.budget.v1.ReturnRequest;
import dev.steward.budget.v1.ReturnResponse;
import dev.steward.budget.v1.SessionHeartbeat;
import dev.steward.budget.v1.SessionRequest;
import dev.steward.budget.v1.SessionResponse;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
class SessionTest {
  private final Ledger ledger = new Ledger();
  private LoopbackServer server;
  private Steward steward;

  @BeforeEach
  void open() throws Exception {
    server = new LoopbackServer(ledger);
    steward = Steward.at(server.address()).token("ic").open();
  }

  @AfterEach
  void close() {
    steward.close();
    server.close();
  }

  @Test
  void batchesOfOneLeaseThatWereBookedTogetherAreAnsweredTogether() throws Exception {
    try (Session session = steward.session(control -> {})) {
      var first = session.ask(batch("lease-1"));
      var other = session.ask(batch("lease-2"));
      var second = session.ask(batch("lease-1"));
      ledger.heard.take();
      ledger.heard.take();
      long number = ledger.heard.take().getMessageId();

      ReportAck ack = ReportAck.newBuilder().setLeaseId("lease-1").setSequence(2).build();
      ledger.say(SessionResponse.newBuilder().setInReplyTo(number).setReportAck(ack));

      assertEquals(2, first.join().getReportAck().getSequence());
      assertEquals(2, second.join().getReportAck().getSequence());
      assertTrue(!other.isDone());
    }
  }

  @Test
  void whoeverIsToldToStopMayGiveBackOverTheSameSession() throws Exception {
    CompletableFuture<Long> returned = new CompletableFuture<>();
    CompletableFuture<Session> opened = new CompletableFuture<>();
    try (Session session =
        steward.session(
            control -> {
              ReturnRequest request = ReturnRequest.newBuilder().setLeaseId("lease-1").build();
              returned.complete(opened.join().giveBack(request).getReturnedNanousd());
            })) {
      opened.complete(session);
      session.ask(heartbeat());
      ledger.heard.take();
      ledger.say(
          SessionResponse.newBuilder()
              .setControl(
                  Control.newBuilder().setDesiredState(DesiredState.DESIRED_STATE_STOPPED)));

      long number = ledger.heard.take().getMessageId();
      ReturnResponse answer = ReturnResponse.newBuilder().setReturnedNanousd(7).build();
      ledger.say(SessionResponse.newBuilder().setInReplyTo(number).setReturnLease(answer));

      assertEquals(7, returned.join());
    }
  }

  @Test
  void whatIsRefusedLeavesTheSessionOpen() throws Exception {
    try (Session session = steward.session(control -> {})) {
      var refused = session.ask(batch("lease-1"));
      var beat = session.ask(heartbeat());
      var why = com.google.rpc.Status.newBuilder().setCode(Status.Code.NOT_FOUND.value());
      ledger.say(
          SessionResponse.newBuilder()
              .setInReplyTo(ledger.heard.take().getMessageId())
              .setRefusal(why));
      ledger.say(
          SessionResponse.newBuilder()
              .setInReplyTo(ledger.heard.take().getMessageId())
              .setHeartbeat(SessionHeartbeat.getDefaultInstance()));

      assertThrows(StewardException.NotFound.class, () -> Waiting.await(refused));
      assertTrue(beat.join().hasHeartbeat());
    }
  }

  @Test
  void whoeverWaitsWhenTheStreamIsCutIsToldWhy() throws Exception {
    try (Session session = steward.session(control -> {})) {
      var waiting = session.ask(heartbeat());
      ledger.heard.take();
      ledger.cut(Status.UNAUTHENTICATED);

      assertThrows(StewardException.Unauthorized.class, () -> Waiting.await(waiting));
      assertThrows(StewardException.Unauthorized.class, () -> Waiting.await(session.ended()));
      assertThrows(StewardException.Unauthorized.class, session::beat);
    }
  }

  @Test
  void aSessionThatIsClosedTakesNothing() {
    Session session = steward.session(control -> {});
    session.close();
    session.close();
    assertThrows(StewardException.Unavailable.class, session::beat);
  }

  private static SessionRequest batch(String leaseId) {
    return SessionRequest.newBuilder()
        .setReportBatch(ReportBatch.newBuilder().setLeaseId(leaseId))
        .build();
  }

  private static SessionRequest heartbeat() {
    return SessionRequest.newBuilder().setHeartbeat(SessionHeartbeat.getDefaultInstance()).build();
  }

  /** Notes what it hears, and says what it is told to. */
  private static final class Ledger extends BudgetServiceGrpc.BudgetServiceImplBase {
    final BlockingQueue<SessionRequest> heard = new LinkedBlockingQueue<>();
    private volatile StreamObserver<SessionResponse> answers;

    @Override
    public StreamObserver<SessionRequest> session(StreamObserver<SessionResponse> answers) {
      this.answers = answers;
      return new StreamObserver<>() {
        @Override
        public void onNext(SessionRequest request) {
          heard.add(request);
        }

        @Override
        public void onError(Throwable error) {
          // The caller is gone; nobody is to be told.
        }

        @Override
        public void onCompleted() {
          answers.onCompleted();
        }
      };
    }

    void say(SessionResponse.Builder response) {
      answers.onNext(response.build());
    }

    void cut(Status why) {
      answers.onError(why.asRuntimeException());
    }
  }
}
