package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import dev.steward.auth.v1.AuthServiceGrpc;
import dev.steward.auth.v1.GetMeRequest;
import dev.steward.auth.v1.GetMeResponse;
import dev.steward.auth.v1.LoginRequest;
import dev.steward.auth.v1.LoginResponse;
import dev.steward.auth.v1.RefreshRequest;
import dev.steward.auth.v1.RefreshResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
class StewardTest {
  private static final GetMeRequest ME = GetMeRequest.getDefaultInstance();

  private final Door door = new Door();
  private LoopbackServer server;
  private Steward steward;

  @BeforeEach
  void open() throws Exception {
    server = new LoopbackServer(door);
    steward = Steward.at(server.address()).open();
  }

  @AfterEach
  void close() {
    steward.close();
    server.close();
  }

  @Test
  void aTokenIsShown() {
    door.goodTokens.add("key");
    try (Steward keyed = Steward.at(server.address()).token("key").open()) {
      assertEquals("vera", me(keyed));
    }
    assertEquals("Bearer key", server.shown.get(0));
  }

  @Test
  void aSignInIsShownButNotWhereNobodyAsksForIt() {
    steward.signIn("vera", "a quiet evening");
    assertEquals("vera", me(steward));
    steward.signIn("vera", "a quiet evening");
    assertEquals(null, server.shown.get(0));
    assertEquals("Bearer access-0", server.shown.get(1));
    assertEquals(null, server.shown.get(2));
  }

  @Test
  void aSignInThatIsAboutToEndIsRenewedOnceForAllWhoCall() {
    door.lastsS = 1;
    steward.signIn("vera", "a quiet evening");
    door.lastsS = 3600;
    List<CompletableFuture<GetMeResponse>> coming = new ArrayList<>();
    for (int call = 0; call < 20; call++) {
      coming.add(steward.callAsync(AuthServiceGrpc.getGetMeMethod(), ME));
    }
    coming.forEach(CompletableFuture::join);
    assertEquals(1, door.refreshes.get());
  }

  @Test
  void aSignInThatTheServerNoLongerTakesIsRenewedAndTheCallMadeAgain() {
    steward.signIn("vera", "a quiet evening");
    door.goodTokens.clear();
    assertEquals("vera", me(steward));
    assertEquals(1, door.refreshes.get());
  }

  @Test
  void aRenewalWhoseAnswerIsLostIsAskedForAgain() {
    steward.signIn("vera", "a quiet evening");
    door.goodTokens.clear();
    door.lostAnswers.set(1);
    assertEquals("vera", me(steward));
    assertEquals(2, door.refreshes.get());
  }

  @Test
  void aSignInThatCannotBeRenewedIsRefused() {
    steward.signIn("vera", "a quiet evening");
    door.goodTokens.clear();
    door.isRefreshing = false;
    assertThrows(StewardException.Unauthorized.class, () -> me(steward));
    assertThrows(StewardException.Unauthorized.class, () -> me(steward));
    assertEquals(1, door.refreshes.get());
  }

  @Test
  void aTokenThatTheServerDoesNotTakeIsShownOnce() {
    try (Steward keyed = Steward.at(server.address()).token("nonsense").open()) {
      assertThrows(StewardException.Unauthorized.class, () -> me(keyed));
    }
    assertEquals(1, server.shown.size());
  }

  @Test
  void generatedStubsAreRetriedToo() {
    door.refusals.add(retryAfter(0));
    door.goodTokens.add("key");
    try (Steward keyed = Steward.at(server.address()).token("key").open()) {
      assertEquals(
          "vera", AuthServiceGrpc.newBlockingStub(keyed.channel()).getMe(ME).getUsername());
    }
    assertEquals(2, server.shown.size());
  }

  @Test
  void aWaitThatWouldPassTheDeadlineIsNotBegun() {
    door.refusals.add(retryAfter(30));
    long begun = System.nanoTime();
    StewardException refusal =
        assertThrows(
            StewardException.RateLimited.class,
            () -> steward.call(AuthServiceGrpc.getGetMeMethod(), ME, Duration.ofSeconds(3)));
    assertEquals(Duration.ofSeconds(30), refusal.retryAfter().orElseThrow());
    assertTrue(System.nanoTime() - begun < 2_000_000_000L);
  }

  @Test
  void aCallThatIsGivenUpWhileItWaitsIsNotMadeAgain() throws Exception {
    door.refusals.add(retryAfter(1));
    var coming = steward.callAsync(AuthServiceGrpc.getGetMeMethod(), ME);
    while (server.shown.isEmpty() || !door.refusals.isEmpty()) {
      Thread.sleep(10);
    }
    Thread.sleep(200);
    coming.cancel(false);
    Thread.sleep(1_200);
    assertEquals(1, server.shown.size());
  }

  @Test
  void aServerThatIsNotThereIsUnavailable() {
    server.close();
    assertThrows(StewardException.Unavailable.class, () -> me(steward));
  }

  private static String me(Steward steward) {
    return steward.call(AuthServiceGrpc.getGetMeMethod(), ME).getUsername();
  }

  private static StatusRuntimeException retryAfter(int seconds) {
    var delay = com.google.protobuf.Duration.newBuilder().setSeconds(seconds);
    return StatusProto.toStatusRuntimeException(
        com.google.rpc.Status.newBuilder()
            .setCode(Code.RESOURCE_EXHAUSTED_VALUE)
            .addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build()))
            .build());
  }

  /** Lets in whoever shows a token it gave. */
  private final class Door extends AuthServiceGrpc.AuthServiceImplBase {
    final List<String> goodTokens = new java.util.concurrent.CopyOnWriteArrayList<>();
    final List<StatusRuntimeException> refusals = new java.util.concurrent.CopyOnWriteArrayList<>();
    final AtomicInteger refreshes = new AtomicInteger();
    final AtomicInteger lostAnswers = new AtomicInteger();
    volatile int lastsS = 3600;
    volatile boolean isRefreshing = true;

    @Override
    public void login(LoginRequest request, StreamObserver<LoginResponse> answers) {
      goodTokens.add("access-0");
      answers.onNext(
          LoginResponse.newBuilder()
              .setAccessToken("access-0")
              .setRefreshToken("refresh-0")
              .setExpiresIn(lastsS)
              .build());
      answers.onCompleted();
    }

    @Override
    public void refresh(RefreshRequest request, StreamObserver<RefreshResponse> answers) {
      int number = refreshes.incrementAndGet();
      if (!isRefreshing) {
        answers.onError(Status.UNAUTHENTICATED.asRuntimeException());
        return;
      }
      goodTokens.add("access-" + number);
      if (lostAnswers.getAndUpdate(left -> Math.max(0, left - 1)) > 0) {
        answers.onError(Status.UNAVAILABLE.asRuntimeException());
        return;
      }
      answers.onNext(
          RefreshResponse.newBuilder()
              .setAccessToken("access-" + number)
              .setRefreshToken("refresh-" + number)
              .setExpiresIn(lastsS)
              .build());
      answers.onCompleted();
    }

    @Override
    public void getMe(GetMeRequest request, StreamObserver<GetMeResponse> answers) {
      if (!refusals.isEmpty()) {
        answers.onError(refusals.remove(0));
        return;
      }
      String token = server.shown.get(server.shown.size() - 1);
      if (token == null || !goodTokens.contains(token.replace("Bearer ", ""))) {
        answers.onError(Status.UNAUTHENTICATED.asRuntimeException());
        return;
      }
      answers.onNext(GetMeResponse.newBuilder().setUsername("vera").build());
      answers.onCompleted();
    }
  }
}
