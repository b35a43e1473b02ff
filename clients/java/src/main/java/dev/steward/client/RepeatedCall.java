package dev.steward.client;

import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import java.util.concurrent.ForkJoinPool;
import java.util.function.Supplier;

/** A call with one request that may be made several times; once it has an answer, never again. */
final class RepeatedCall<Q, A> extends ClientCall<Q, A> {
  /** Says of a refused attempt, as soon as that may be, whether to make another. */
  interface Again<Q> {
    CompletionStage<Boolean> after(
        Q request, int attempts, StewardException refusal, Executor executor);
  }

  private final Supplier<ClientCall<Q, A>> calls;
  private final Executor executor;
  private final Again<Q> again;
  private final Context context = Context.current();

  private Listener<A> listener;
  private Metadata headers;
  private Q request;
  private int wanted;
  private int attempts;
  private ClientCall<Q, A> attempt;
  private Status cancelled;
  private boolean isOver;

  /**
   * @param executor on which the caller is told; null for that of the channel
   */
  RepeatedCall(Supplier<ClientCall<Q, A>> calls, Executor executor, Again<Q> again) {
    this.calls = calls;
    this.executor = executor == null ? ForkJoinPool.commonPool() : executor;
    this.again = again;
  }

  @Override
  public void start(Listener<A> listener, Metadata headers) {
    this.listener = listener;
    this.headers = headers;
  }

  @Override
  public void sendMessage(Q request) {
    this.request = request;
  }

  @Override
  public void halfClose() {
    attempt();
  }

  @Override
  public synchronized void request(int count) {
    wanted += count;
    if (attempt != null) {
      attempt.request(count);
    }
  }

  @Override
  public synchronized void cancel(String message, Throwable cause) {
    cancelled = Status.CANCELLED.withDescription(message).withCause(cause);
    if (attempt != null) {
      attempt.cancel(message, cause);
    } else {
      executor.execute(() -> end(cancelled, new Metadata()));
    }
  }

  private synchronized void attempt() {
    if (cancelled != null) {
      return;
    }
    attempts++;
    Metadata copy = new Metadata();
    copy.merge(headers);
    context.run(
        () -> {
          attempt = calls.get();
          attempt.start(new Attempt(), copy);
          attempt.request(wanted);
          attempt.sendMessage(request);
          attempt.halfClose();
        });
  }

  private void end(Status status, Metadata trailers) {
    synchronized (this) {
      if (isOver) {
        return;
      }
      isOver = true;
    }
    listener.onClose(status, trailers);
  }

  private final class Attempt extends Listener<A> {
    private Metadata answerHeaders;
    private boolean isAnswered;

    @Override
    public void onHeaders(Metadata headers) {
      answerHeaders = headers; // kept back: the attempt may come to nothing
    }

    @Override
    public void onMessage(A message) {
      passHeaders();
      listener.onMessage(message);
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      if (status.isOk() || isAnswered) {
        passHeaders();
        end(status, trailers);
        return;
      }
      synchronized (RepeatedCall.this) {
        attempt = null;
      }
      again
          .after(request, attempts, StewardException.of(status, trailers), executor)
          .whenComplete(
              (isWanted, error) -> {
                if (error == null && isWanted) {
                  attempt();
                } else {
                  executor.execute(() -> end(status, trailers));
                }
              });
    }

    private void passHeaders() {
      if (!isAnswered && answerHeaders != null) {
        listener.onHeaders(answerHeaders);
      }
      isAnswered = true;
    }
  }
}
