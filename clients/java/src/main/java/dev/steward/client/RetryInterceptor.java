package dev.steward.client;

import static java.util.concurrent.CompletableFuture.completedFuture;
import static java.util.concurrent.CompletableFuture.delayedExecutor;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Deadline;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Makes a refused call again where {@link Retries} says so, never past the caller's deadline. */
final class RetryInterceptor implements ClientInterceptor {
  private final Retries retries;

  RetryInterceptor(Retries retries) {
    this.retries = retries;
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(
      MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    if (!method.getType().clientSendsOneMessage()) {
      return next.newCall(method, options);
    }
    MethodRules rules = MethodRules.of(method);
    return new RepeatedCall<>(
        () -> next.newCall(method, options),
        options.getExecutor(),
        (request, attempts, refusal, executor) -> {
          double draw = ThreadLocalRandom.current().nextDouble();
          var delay = retries.delay(attempts, refusal, rules.isRepeatable(request), draw);
          if (delay.isEmpty() || passes(options.getDeadline(), delay.get())) {
            return completedFuture(false);
          }
          var later = delayedExecutor(delay.get().toNanos(), TimeUnit.NANOSECONDS, executor);
          return CompletableFuture.supplyAsync(() -> true, later);
        });
  }

  private static boolean passes(Deadline deadline, Duration delay) {
    return deadline != null && deadline.timeRemaining(TimeUnit.NANOSECONDS) <= delay.toNanos();
  }
}
