package dev.steward.client;

import static dev.steward.client.Waiting.await;

import dev.steward.auth.v1.AuthServiceGrpc;
import dev.steward.auth.v1.LoginRequest;
import dev.steward.auth.v1.LoginResponse;
import dev.steward.auth.v1.LogoutRequest;
import dev.steward.auth.v1.RefreshRequest;
import dev.steward.budget.v1.Control;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * A Steward server, as one caller sees it. Many threads may share it.
 *
 * <pre>{@code
 * try (Steward steward = Steward.at("127.0.0.1:50051").token(token).open()) {
 *   steward.call(AgentServiceGrpc.getListAgentsMethod(), ListAgentsRequest.getDefaultInstance());
 * }
 * }</pre>
 *
 * <p>Every call shows the credential, carries a request id where its method takes one, and is tried
 * again where that is safe; what is refused is a {@link StewardException}.
 */
public final class Steward implements AutoCloseable {
  // More than the 4 MiB that servers send, so that they may come to send more.
  private static final int MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
  // Leaves time to ask again while the spent token still gives its successor.
  private static final Duration REFRESH_TIMEOUT = Duration.ofSeconds(5);
  private static final long PING_S = 30;
  private static final long PING_TIMEOUT_S = 20; // a line that hangs says nothing
  private static final long HANG_UP_S = 1;

  private final ManagedChannel line;
  private final Channel channel;
  private final Credentials credentials;
  private final Duration timeout;

  private Steward(ManagedChannel line, Builder settings) {
    this.line = line;
    this.timeout = settings.timeout;
    this.credentials = new Credentials(this::refresh);
    if (!settings.token.isEmpty()) {
      credentials.keep(settings.token);
    }
    this.channel =
        ClientInterceptors.interceptForward(
            line,
            List.of(
                new RequestIdInterceptor(),
                new RetryInterceptor(settings.retries),
                new CredentialInterceptor(credentials)));
  }

  /**
   * A client for the server at this address: {@code host:port} in plain text, {@code
   * https://host:port} in TLS.
   */
  public static Builder at(String address) {
    return new Builder(address);
  }

  /** Makes a call and waits for its answer. */
  public <Q, A> A call(MethodDescriptor<Q, A> method, Q request) {
    return call(method, request, timeout);
  }

  /** The same, with a deadline for the whole of it, retries included. */
  public <Q, A> A call(MethodDescriptor<Q, A> method, Q request, Duration timeout) {
    return await(callAsync(method, request, timeout));
  }

  /** Makes a call, with the answer to come; cancelling that cancels the call. */
  public <Q, A> CompletableFuture<A> callAsync(MethodDescriptor<Q, A> method, Q request) {
    return callAsync(method, request, timeout);
  }

  /** The same, with a deadline for the whole of it, retries included. */
  public <Q, A> CompletableFuture<A> callAsync(
      MethodDescriptor<Q, A> method, Q request, Duration timeout) {
    CallOptions options =
        CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    ClientCall<Q, A> call = channel.newCall(method, options);
    Answer<A> answer = new Answer<>();
    ClientCalls.asyncUnaryCall(call, request, answer);
    answer.coming.whenComplete(
        (given, error) -> {
          if (answer.coming.isCancelled()) {
            call.cancel("nobody waits for the answer any more", null);
          }
        });
    return answer.coming;
  }

  /** Makes a call whose answers are a stream. */
  public <Q, A> Answers<A> stream(MethodDescriptor<Q, A> method, Q request) {
    return new Answers<>(channel, method, request);
  }

  /**
   * Opens a runtime's session, by an agent's IC token.
   *
   * @param onControl is told, in order and on a thread of its own, what is wanted of the runtime:
   *     to stop, that a lease ended, that there is more or less to borrow
   */
  public Session session(Consumer<Control> onControl) {
    return Session.open(channel, timeout, onControl);
  }

  /** Opens a stream for agents that policies decide for. */
  public AgentStream agents() {
    return AgentStream.open(channel, timeout);
  }

  /**
   * Signs in, by user name or e-mail address; from now on the client calls as that person, and
   * renews the sign-in by itself.
   */
  public LoginResponse signIn(String user, String password) {
    LoginRequest.Builder request = LoginRequest.newBuilder().setPassword(password);
    if (user.contains("@")) {
      request.setEmail(user);
    } else {
      request.setUsername(user);
    }
    LoginResponse pair = call(AuthServiceGrpc.getLoginMethod(), request.build());
    credentials.keep(pair.getAccessToken(), pair.getRefreshToken(), pair.getExpiresIn());
    return pair;
  }

  /** Ends the sign-in, here and at the server, on open streams too. */
  public void signOut() {
    call(AuthServiceGrpc.getLogoutMethod(), LogoutRequest.getDefaultInstance());
    credentials.forget();
  }

  /**
   * The channel that all of this goes through, for generated stubs. They throw grpc's exceptions:
   * see {@link StewardException#of(Throwable)}.
   */
  public Channel channel() {
    return channel;
  }

  @Override
  public void close() {
    line.shutdown();
    try {
      line.awaitTermination(HANG_UP_S, TimeUnit.SECONDS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
    line.shutdownNow();
  }

  private CompletableFuture<dev.steward.auth.v1.RefreshResponse> refresh(String refreshToken) {
    return callAsync(
        AuthServiceGrpc.getRefreshMethod(),
        RefreshRequest.newBuilder().setRefreshToken(refreshToken).build(),
        REFRESH_TIMEOUT);
  }

  /** How a server is called. */
  public static final class Builder {
    private final String address;
    private String token = "";
    private Path roots;
    private Duration timeout = Duration.ofSeconds(60);
    private Retries retries = Retries.DEFAULT;

    private Builder(String address) {
      this.address = address;
    }

    /** Who calls: a person's access token, an API key, or an agent's IC token. */
    public Builder token(String token) {
      this.token = token;
      return this;
    }

    /** Trusts the certificates of a PEM file, in place of the system's. */
    public Builder roots(Path file) {
      this.roots = file;
      return this;
    }

    /** How long a call that says nothing else may take, and an answer over a stream: 60 s. */
    public Builder timeout(Duration timeout) {
      this.timeout = timeout;
      return this;
    }

    /** When refused calls are made again. */
    public Builder retries(Retries retries) {
      this.retries = retries;
      return this;
    }

    /** Makes the client; it connects with its first call. */
    public Steward open() {
      Address where = Address.parse(address, roots != null);
      ManagedChannel line =
          Grpc.newChannelBuilder(where.target(), where.credentials(roots))
              .maxInboundMessageSize(MAX_MESSAGE_BYTES)
              .keepAliveTime(PING_S, TimeUnit.SECONDS)
              .keepAliveTimeout(PING_TIMEOUT_S, TimeUnit.SECONDS)
              .build();
      return new Steward(line, this);
    }
  }

  private static final class Answer<A> implements StreamObserver<A> {
    private final CompletableFuture<A> coming = new CompletableFuture<>();
    private A message;

    @Override
    public void onNext(A message) {
      this.message = message;
    }

    @Override
    public void onError(Throwable error) {
      coming.completeExceptionally(StewardException.of(error));
    }

    @Override
    public void onCompleted() {
      coming.complete(message);
    }
  }
}
