package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.ByteString;
import dev.steward.inference.v1.InferenceServiceGrpc;
import dev.steward.inference.v1.PackedResults;
import dev.steward.inference.v1.PackedSteps;
import dev.steward.inference.v1.StepResponse;
import dev.steward.inference.v1.StreamAgent;
import dev.steward.inference.v1.StreamClosed;
import dev.steward.inference.v1.StreamOpened;
import dev.steward.inference.v1.StreamRequest;
import dev.steward.inference.v1.StreamResponse;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
class AgentStreamTest {
  private static final float CUT = -1;
  private static final StreamResponse REFUSAL =
      StreamResponse.newBuilder()
          .setRefusal(
              com.google.rpc.Status.newBuilder()
                  .setCode(Status.Code.RESOURCE_EXHAUSTED.value())
                  .setMessage("too many agents"))
          .build();

  private final Policies policies = new Policies();
  private LoopbackServer server;
  private Steward steward;

  @BeforeEach
  void open() throws Exception {
    server = new LoopbackServer(policies);
    steward = Steward.at(server.address()).token("ic").open();
  }

  @AfterEach
  void close() {
    steward.close();
    server.close();
  }

  @Test
  void eachAgentHasItsOwnAnswers() {
    try (AgentStream stream = steward.agents()) {
      var first = stream.bring("pole");
      var second = stream.bring("pole");
      var ofSecond = second.stepAsync(new float[] {2}, true);
      var ofFirst = first.stepAsync(new float[] {1}, true);
      assertEquals(1, ofSecond.join().getAction().getChoice());
      assertEquals(0, ofFirst.join().getAction().getChoice());
      assertEquals("pole@1", second.policy());
    }
  }

  @Test
  void anAgentThatBeginsAnewHasAnotherNumber() {
    try (AgentStream stream = steward.agents()) {
      var agent = stream.bring("pole");
      assertEquals(0, agent.step(1).getAction().getChoice());
      agent.reset(7);
      assertEquals(1, agent.step(1).getAction().getChoice());
    }
  }

  @Test
  void aResetWhoseSecondHalfIsRefusedCanBeAskedForAgain() {
    policies.instead.put(3, REFUSAL);
    try (AgentStream stream = steward.agents()) {
      var agent = stream.bring("pole");
      assertThrows(StewardException.RateLimited.class, agent::reset);
      agent.reset(7);
      assertEquals(1, agent.step(1).getAction().getChoice());
      agent.reset();
    }
    assertEquals(List.of(0, 1), policies.closed());
  }

  @Test
  void anAgentThatARefusedResetTookOutHasEnded() {
    policies.instead.put(3, REFUSAL);
    try (AgentStream stream = steward.agents()) {
      var agent = stream.bring("pole");
      assertThrows(StewardException.RateLimited.class, agent::reset);
      agent.end();
    }
    assertEquals(List.of(0), policies.closed());
  }

  @Test
  void anEndThatIsRefusedCanBeAskedForAgain() {
    policies.instead.put(2, REFUSAL);
    try (AgentStream stream = steward.agents()) {
      var agent = stream.bring("pole");
      assertThrows(StewardException.RateLimited.class, agent::end);
      agent.end();
    }
    assertEquals(List.of(0, 0), policies.closed());
  }

  @Test
  void stepsThatDoNotFitTheirAgentsAreRefusedByTheClient() {
    try (AgentStream stream = steward.agents()) {
      var both = List.of(stream.bring("pole"), stream.bring("pole"));
      assertEquals(
          "0 rows are given for 0 agents; give a row for each, and an agent at least",
          refused(stream, List.of()));
      assertEquals(
          "2 rows are given for 0 agents; give a row for each, and an agent at least",
          refused(stream, List.of(), row(1), row(2)));
      assertEquals(
          "1 rows are given for 2 agents; give a row for each, and an agent at least",
          refused(stream, both, row(1, 2)));
      assertEquals(
          "3 rows are given for 2 agents; give a row for each, and an agent at least",
          refused(stream, both, row(1), row(2), row(3)));
      assertEquals(
          "row 1 has 3 numbers, row 0 has 1; give all of them as many",
          refused(stream, both, row(1), row(2, 3, 4)));
      assertEquals(2, stream.step(both, new float[][] {{1}, {2}}, true).size());
    }
    assertEquals(3, policies.heard.size());
  }

  @Test
  void anAnswerWithoutARowForEachIsAFaultOfTheServers() {
    ByteString one = ByteString.copyFrom(new byte[4]);
    ByteString two = ByteString.copyFrom(new byte[8]);
    for (PackedResults results :
        List.of(
            PackedResults.getDefaultInstance(),
            packed(one, two, two, two),
            packed(ByteString.EMPTY, two, two, two),
            packed(two, one, two, two),
            packed(two, two, one, two),
            packed(two, two, two, one))) {
      policies.heard.clear();
      policies.instead.put(3, StreamResponse.newBuilder().setPacked(results).build());
      try (AgentStream stream = steward.agents()) {
        var both = List.of(stream.bring("pole"), stream.bring("pole"));
        var fault =
            assertThrows(
                StewardException.ServerFault.class,
                () -> stream.step(both, new float[][] {{1}, {2}}, true));
        assertEquals("the answer has not a row for each of 2 agents", fault.getMessage());
      }
    }
  }

  @Test
  void agentsOfWhichTheServerTellsTooLittleAreNotBrought() {
    try (AgentStream stream = steward.agents()) {
      var one = StreamAgent.newBuilder().setPolicy("pole").build();
      assertThrows(StewardException.ServerFault.class, () -> stream.bring(List.of(one, one)));
    }
  }

  @Test
  void stepsOfManyArePackedAndUnpacked() {
    try (AgentStream stream = steward.agents()) {
      var first = stream.bring("pole");
      var second = stream.bring("pole");
      Steps steps =
          stream.step(List.of(second, first), new float[][] {{0.5f, 2}, {-0.25f, 4}}, true);
      assertEquals(2, steps.size());
      assertArrayEquals(new int[] {1, 0}, steps.choices());
      assertArrayEquals(new float[] {0.5f, -0.25f}, steps.values());
    }
  }

  @Test
  void aStreamThatIsCutSaysThatWhatWasKeptMayBeLost() {
    try (AgentStream stream = steward.agents()) {
      var agent = stream.bring("pole");
      StewardException cut =
          assertThrows(StewardException.StreamBroken.class, () -> agent.step(CUT));
      assertEquals("STREAM_BROKEN", cut.reason());
      assertThrows(StewardException.StreamBroken.class, () -> agent.step(1));
    }
  }

  @Test
  void aStreamThatIsRefusedSaysWhy() {
    try (AgentStream stream = steward.agents()) {
      assertThrows(StewardException.Forbidden.class, () -> stream.bring("forbidden"));
    }
  }

  /** What the client says of steps that it does not send. */
  private static String refused(
      AgentStream stream, List<AgentStream.Agent> agents, float[]... observations) {
    var refusal =
        assertThrows(
            StewardException.InvalidRequest.class, () -> stream.step(agents, observations, true));
    return refusal.getMessage();
  }

  private static float[] row(float... numbers) {
    return numbers;
  }

  private static PackedResults packed(
      ByteString actions, ByteString values, ByteString logProbs, ByteString pressures) {
    return PackedResults.newBuilder()
        .setActions(actions)
        .setValues(values)
        .setLogProbs(logProbs)
        .setPressures(pressures)
        .build();
  }

  /**
   * Answers two steps in the other order; the choice is the number of the agent. Of agents that are
   * brought together it tells of the first alone.
   */
  private static final class Policies extends InferenceServiceGrpc.InferenceServiceImplBase {
    final List<StreamRequest> heard = new CopyOnWriteArrayList<>();

    /** In place of the answer to the first message, the second and so on. */
    final Map<Integer, StreamResponse> instead = new ConcurrentHashMap<>();

    /** The numbers of agents that were to be taken out. */
    List<Integer> closed() {
      return heard.stream()
          .flatMap(request -> request.getClose().getAgentsList().stream())
          .toList();
    }

    @Override
    public StreamObserver<StreamRequest> stream(StreamObserver<StreamResponse> answers) {
      return new StreamObserver<>() {
        private final List<StreamResponse> late = new ArrayList<>();
        private int agents;

        @Override
        public void onNext(StreamRequest request) {
          heard.add(request);
          StreamResponse other = instead.get(heard.size());
          if (other != null) {
            answers.onNext(other.toBuilder().setSequence(request.getSequence()).build());
            return;
          }
          StreamResponse.Builder answer =
              StreamResponse.newBuilder().setSequence(request.getSequence());
          switch (request.getMessageCase()) {
            case OPEN -> {
              if (request.getOpen().getAgents(0).getPolicy().equals("forbidden")) {
                answers.onError(Status.PERMISSION_DENIED.asRuntimeException());
                return;
              }
              answer.setOpened(
                  StreamOpened.newBuilder()
                      .setFirst(agents++)
                      .addPolicies("pole@1")
                      .addBegun(true));
            }
            case STEP -> {
              float seen = request.getStep().getObservation(0);
              if (seen == CUT) {
                answers.onError(Status.UNAVAILABLE.asRuntimeException());
                return;
              }
              StepResponse.Builder step = StepResponse.newBuilder();
              step.getActionBuilder().setChoice(request.getStep().getAgent());
              answer.setStep(step);
              if (seen == 2) {
                late.add(answer.build());
                return;
              }
            }
            case PACKED -> answer.setPacked(results(request.getPacked()));
            default -> answer.setClosed(StreamClosed.getDefaultInstance());
          }
          answers.onNext(answer.build());
          late.forEach(answers::onNext);
          late.clear();
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

    /** The choice is the number of the agent, the value the first number of its row. */
    private static PackedResults results(PackedSteps steps) {
      int rows = steps.getAgentsCount();
      int rowBytes = steps.getObservations().size() / rows;
      ByteString actions = ByteString.EMPTY;
      ByteString values = ByteString.EMPTY;
      for (int row = 0; row < rows; row++) {
        byte[] number = {(byte) steps.getAgents(row), 0, 0, 0};
        actions = actions.concat(ByteString.copyFrom(number));
        values =
            values.concat(steps.getObservations().substring(row * rowBytes, row * rowBytes + 4));
      }
      return packed(actions, values, values, values);
    }
  }
}
