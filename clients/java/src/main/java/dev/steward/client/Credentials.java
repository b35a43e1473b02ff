package dev.steward.client;

import static io.grpc.Metadata.ASCII_STRING_MARSHALLER;
import static java.util.concurrent.CompletableFuture.completedFuture;

import dev.steward.auth.v1.RefreshResponse;
import io.grpc.CallCredentials;
import io.grpc.Metadata;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.function.Function;

/** What calls show to say who calls: a fixed token, or a sign-in that is renewed before it ends. */
final class Credentials extends CallCredentials {
  /** An access token with less than this left is renewed before a call. */
  static final Duration MOMENT = Duration.ofSeconds(30);

  /**
   * A stream ends with the sign-in it began with: it gets one that is good for most of its hour.
   */
  static final Duration LASTING = Duration.ofMinutes(50);

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", ASCII_STRING_MARSHALLER);
  private static final Shown NOTHING = new Shown("", "", Instant.MAX);

  private final Function<String, CompletableFuture<RefreshResponse>> refresh;
  private Shown shown = NOTHING;
  private CompletableFuture<Boolean> renewal;

  /**
   * @param refresh exchanges a refresh token for a new pair
   */
  Credentials(Function<String, CompletableFuture<RefreshResponse>> refresh) {
    this.refresh = refresh;
  }

  /** Shows this token from now on. */
  synchronized void keep(String token) {
    shown = new Shown(token, "", Instant.MAX);
  }

  /** Shows this pair's token from now on, and renews it. */
  synchronized void keep(String accessToken, String refreshToken, int expiresIn) {
    shown = new Shown(accessToken, refreshToken, Instant.now().plusSeconds(expiresIn));
  }

  synchronized void forget() {
    shown = NOTHING;
  }

  /** The token to show now; empty for none. */
  synchronized String token() {
    return shown.token;
  }

  /**
   * Gets another token than this one; false if there is no way to. Whoever asks while it is being
   * got waits for the same.
   */
  synchronized CompletableFuture<Boolean> renew(String token) {
    if (!shown.token.equals(token)) {
      return completedFuture(true);
    }
    if (shown.refreshToken.isEmpty()) {
      return completedFuture(false);
    }
    if (renewal == null || renewal.isDone()) {
      renewal =
          refresh.apply(shown.refreshToken).handle((pair, error) -> renewed(token, pair, error));
    }
    return renewal;
  }

  @Override
  public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
    boolean isStream = !info.getMethodDescriptor().getType().serverSendsOneMessage();
    // Where it cannot be renewed the server says what is wrong with it.
    fresh(isStream ? LASTING : MOMENT)
        .whenComplete(
            (isFresh, error) -> {
              Metadata headers = new Metadata();
              String token = token();
              if (!token.isEmpty()) {
                headers.put(AUTHORIZATION, "Bearer " + token);
              }
              applier.apply(headers);
            });
  }

  private synchronized CompletableFuture<Boolean> fresh(Duration time) {
    boolean isEnding = !Instant.now().plus(time).isBefore(shown.endsAt);
    return isEnding ? renew(shown.token) : completedFuture(true);
  }

  private synchronized boolean renewed(String token, RefreshResponse pair, Throwable error) {
    if (!shown.token.equals(token)) {
      return true; // somebody signed in or out meanwhile
    }
    if (error == null) {
      keep(pair.getAccessToken(), pair.getRefreshToken(), pair.getExpiresIn());
    } else if (StewardException.of(error) instanceof StewardException.Unauthorized) {
      forget();
    }
    return error == null;
  }

  private record Shown(String token, String refreshToken, Instant endsAt) {
    @Override
    public String toString() {
      return "Shown[endsAt=" + endsAt + "]"; // tokens are secrets
    }
  }
}
