package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.protobuf.ByteString;
import dev.steward.inference.v1.InferenceServiceGrpc;
import dev.steward.inference.v1.PackedResults;
import dev.steward.inference.v1.PackedSteps;
import dev.steward.inference.v1.StepResponse;
import dev.steward.inference.v1.StreamClosed;
import dev.steward.inference.v1.StreamOpened;
import dev.steward.inference.v1.StreamRequest;
import dev.steward.inference.v1.StreamResponse;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
class AgentStreamTest {
  private static final float CUT = -1;

  private LoopbackServer server;
  private Steward steward;

  @BeforeEach
  void open() throws Exception {
    server = new LoopbackServer(new Policies());
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

  /** Answers two steps in the other order; the choice is the number of the agent. */
  private static final class Policies extends InferenceServiceGrpc.InferenceServiceImplBase {
    @Override
    public StreamObserver<StreamRequest> stream(StreamObserver<StreamResponse> answers) {
      return new StreamObserver<>() {
        private final List<StreamResponse> late = new ArrayList<>();
        private int agents;

        @Override
        public void onNext(StreamRequest request) {
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
      return PackedResults.newBuilder().setActions(actions).setValues(values).build();
    }
  }
}
