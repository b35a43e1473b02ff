package dev.steward.client;

import com.google.rpc.Status;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.MethodDescriptor;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.LongFunction;

/** Messages over one stream in both directions, each with the answer that belongs to it. */
abstract class Exchange<Q, A> implements AutoCloseable {
  /** How long the server may take to end a stream; it takes milliseconds. */
  private static final Duration HANG_UP = Duration.ofSeconds(1);

  final Duration timeout;
  private final ClientCall<Q, A> call;
  private final CompletableFuture<Void> ended = new CompletableFuture<>();
  private final SortedMap<Long, Asked<Q, A>> asked = new TreeMap<>();
  private ClientCallStreamObserver<Q> requests;
  private long lastNumber;
  private boolean hasAnswered;
  private StewardException end;

  Exchange(Channel channel, MethodDescriptor<Q, A> method, Duration timeout) {
    this.call = channel.newCall(method, CallOptions.DEFAULT);
    this.timeout = timeout;
  }

  /** The number of the message this answers; 0 for what the server says by itself. */
  abstract long numberOf(A message);

  /** Why what was asked was refused; null if it was not. */
  abstract Status refusalOf(A answer);

  /** Takes what the server says by itself. */
  abstract void take(A message);

  /** What whoever waits is told when the stream ends under them. */
  abstract StewardException cut(StewardException why, boolean hasAnswered);

  /** Whether this answers that request, which has the same number or an earlier one. */
  boolean answers(A answer, long number, Q request) {
    return number == numberOf(answer);
  }

  /** Is done when the stream is over, with why if the server ended it. */
  public CompletableFuture<Void> ended() {
    return ended.copy();
  }

  /** Ends the stream, and returns when the server has let go of it. May be called twice. */
  @Override
  public void close() {
    synchronized (this) {
      if (end == null) {
        end = new StewardException.Unavailable("the stream is closed; open another");
        requests.onCompleted();
      }
    }
    try {
      ended.get(HANG_UP.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    } catch (ExecutionException | TimeoutException error) {
      // It is over, or is given up; either way nobody waits for it any more.
    }
    call.cancel("the stream is closed", null);
  }

  void start() {
    requests =
        (ClientCallStreamObserver<Q>) ClientCalls.asyncBidiStreamingCall(call, new Answers());
  }

  /** Sends a message, which is told its number, and gives its answer to come. */
  CompletableFuture<A> send(LongFunction<Q> message) {
    CompletableFuture<A> answer = new CompletableFuture<>();
    synchronized (this) {
      if (end != null) {
        answer.completeExceptionally(cut(end, hasAnswered));
        return answer;
      }
      long number = ++lastNumber;
      Q request = message.apply(number);
      asked.put(number, new Asked<>(request, answer));
      requests.onNext(request);
      answer.whenComplete((given, error) -> forget(number)); // also when nobody waits any more
    }
    return answer;
  }

  private synchronized void forget(long number) {
    asked.remove(number);
  }

  private synchronized List<Asked<Q, A>> answeredBy(A answer) {
    hasAnswered = true;
    List<Asked<Q, A>> answered = new ArrayList<>();
    asked
        .headMap(numberOf(answer) + 1)
        .forEach(
            (number, each) -> {
              if (answers(answer, number, each.request)) {
                answered.add(each);
              }
            });
    return answered;
  }

  private record Asked<Q, A>(Q request, CompletableFuture<A> answer) {}

  private final class Answers implements StreamObserver<A> {
    @Override
    public void onNext(A message) {
      if (numberOf(message) == 0) {
        take(message);
        return;
      }
      Status refusal = refusalOf(message);
      for (Asked<Q, A> each : answeredBy(message)) {
        if (refusal == null) {
          each.answer.complete(message);
        } else {
          each.answer.completeExceptionally(StewardException.of(refusal));
        }
      }
    }

    @Override
    public void onError(Throwable error) {
      end(StewardException.of(error));
      ended.completeExceptionally(StewardException.of(error));
    }

    @Override
    public void onCompleted() {
      end(new StewardException.Unavailable("the server ended the stream"));
      ended.complete(null);
    }

    private void end(StewardException why) {
      List<Asked<Q, A>> left;
      StewardException told;
      synchronized (Exchange.this) {
        end = end == null ? why : end;
        told = cut(end, hasAnswered);
        left = List.copyOf(asked.values());
      }
      left.forEach(each -> each.answer.completeExceptionally(told));
    }
  }
}
