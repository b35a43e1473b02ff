package dev.steward.client;

import static dev.steward.client.Waiting.await;

import com.google.rpc.Status;
import dev.steward.budget.v1.BudgetServiceGrpc;
import dev.steward.budget.v1.Control;
import dev.steward.budget.v1.HandshakeRequest;
import dev.steward.budget.v1.HandshakeResponse;
import dev.steward.budget.v1.LeaseResumed;
import dev.steward.budget.v1.RefreshRequest;
import dev.steward.budget.v1.RefreshResponse;
import dev.steward.budget.v1.ReportAck;
import dev.steward.budget.v1.ReportBatch;
import dev.steward.budget.v1.ResumeLease;
import dev.steward.budget.v1.ReturnRequest;
import dev.steward.budget.v1.ReturnResponse;
import dev.steward.budget.v1.SessionHeartbeat;
import dev.steward.budget.v1.SessionRequest;
import dev.steward.budget.v1.SessionResponse;
import io.grpc.Channel;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/**
 * A runtime's stream to the ledger: leases are taken, reported on, grown and given back over it,
 * and what is wanted of the runtime comes down it. A refused message leaves it open.
 *
 * <p>Many threads may share it. Where it is cut, leases stay open for as long as they last: open
 * another session and {@link #resume} them.
 */
public final class Session extends Exchange<SessionRequest, SessionResponse> {
  private final Consumer<Control> onControl;
  // A thread of its own, so that whoever is told may ask over the session and wait for the answer.
  private final ExecutorService telling = Executors.newSingleThreadExecutor(Session::thread);

  private Session(Channel channel, Duration timeout, Consumer<Control> onControl) {
    super(channel, BudgetServiceGrpc.getSessionMethod(), timeout);
    this.onControl = onControl;
  }

  static Session open(Channel channel, Duration timeout, Consumer<Control> onControl) {
    Session session = new Session(channel, timeout, onControl);
    session.start();
    return session;
  }

  /** Takes a lease. */
  public HandshakeResponse handshake(HandshakeRequest request) {
    return answer(SessionRequest.newBuilder().setHandshake(request)).getHandshake();
  }

  /** Books what calls used. Usages that were refused are in the answer. */
  public ReportAck report(ReportBatch batch) {
    return answer(SessionRequest.newBuilder().setReportBatch(batch)).getReportAck();
  }

  /** Grows a lease, and moves its expiry; a denial is an answer. */
  public RefreshResponse refresh(RefreshRequest request) {
    return answer(SessionRequest.newBuilder().setRefresh(request)).getRefresh();
  }

  /** Gives back what is left of a lease. */
  public ReturnResponse giveBack(ReturnRequest request) {
    return answer(SessionRequest.newBuilder().setReturnLease(request)).getReturnLease();
  }

  /** Goes on with a lease that was taken over a session that is cut. */
  public LeaseResumed resume(String leaseId) {
    ResumeLease request = ResumeLease.newBuilder().setLeaseId(leaseId).build();
    return answer(SessionRequest.newBuilder().setResumeLease(request)).getLeaseResumed();
  }

  /** Proves that the runtime is alive; a lease of which nobody has a sign of life runs out. */
  public void beat() {
    answer(SessionRequest.newBuilder().setHeartbeat(SessionHeartbeat.getDefaultInstance()));
  }

  /**
   * Sends any message, under a number of its own, and gives the answer to come, on a thread of
   * grpc's, which is not to be kept waiting.
   */
  public CompletableFuture<SessionResponse> ask(SessionRequest request) {
    return send(number -> request.toBuilder().setMessageId(number).build());
  }

  @Override
  public void close() {
    super.close();
    telling.shutdown();
  }

  private SessionResponse answer(SessionRequest.Builder request) {
    return await(ask(request.build()), timeout);
  }

  @Override
  long numberOf(SessionResponse message) {
    return message.getInReplyTo();
  }

  @Override
  Status refusalOf(SessionResponse answer) {
    return answer.hasRefusal() ? answer.getRefusal() : null;
  }

  @Override
  boolean answers(SessionResponse answer, long number, SessionRequest request) {
    // Batches of one lease that were booked together are answered once, with the last one's number.
    boolean isBookedToo =
        answer.hasReportAck()
            && request.hasReportBatch()
            && request.getReportBatch().getLeaseId().equals(answer.getReportAck().getLeaseId());
    return isBookedToo || super.answers(answer, number, request);
  }

  @Override
  void take(SessionResponse message) {
    if (message.hasControl()) {
      telling.execute(() -> onControl.accept(message.getControl()));
    }
  }

  @Override
  StewardException cut(StewardException why, boolean hasAnswered) {
    return why;
  }

  private static Thread thread(Runnable work) {
    Thread thread = new Thread(work, "steward-session");
    thread.setDaemon(true);
    return thread;
  }
}
