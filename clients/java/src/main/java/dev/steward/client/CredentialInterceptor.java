package dev.steward.client;

import static java.util.concurrent.CompletableFuture.completedFuture;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.MethodDescriptor;
import java.util.concurrent.atomic.AtomicReference;

/** Shows who calls, and makes a call again, once, whose sign-in had ended and could be renewed. */
final class CredentialInterceptor implements ClientInterceptor {
  private final Credentials credentials;

  CredentialInterceptor(Credentials credentials) {
    this.credentials = credentials;
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(
      MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    if (MethodRules.of(method).isPublic()) {
      return next.newCall(method, options);
    }
    CallOptions shown = options.withCallCredentials(credentials);
    if (!method.getType().clientSendsOneMessage()) {
      return next.newCall(method, shown);
    }
    AtomicReference<String> token = new AtomicReference<>();
    return new RepeatedCall<>(
        () -> {
          token.set(credentials.token());
          return next.newCall(method, shown);
        },
        options.getExecutor(),
        (request, attempts, refusal, executor) ->
            attempts == 1 && refusal instanceof StewardException.Unauthorized
                ? credentials.renew(token.get())
                : completedFuture(false));
  }
}
