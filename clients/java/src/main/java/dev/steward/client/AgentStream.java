package dev.steward.client;

import static dev.steward.client.Waiting.await;

import com.google.rpc.Status;
import dev.steward.inference.v1.InferenceServiceGrpc;
import dev.steward.inference.v1.PackedSteps;
import dev.steward.inference.v1.StepResponse;
import dev.steward.inference.v1.StreamAgent;
import dev.steward.inference.v1.StreamClose;
import dev.steward.inference.v1.StreamOpen;
import dev.steward.inference.v1.StreamOpened;
import dev.steward.inference.v1.StreamRequest;
import dev.steward.inference.v1.StreamResponse;
import dev.steward.inference.v1.StreamStep;
import io.grpc.Channel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Agents that a policy decides for, as many as wanted over one stream, several steps under way.
 *
 * <p>Many threads may share it. Steps are made in the order in which they are asked for. A stream
 * that breaks is never mended in silence: what the policy kept of its agents may be lost, and only
 * the caller knows what that means.
 */
public final class AgentStream extends Exchange<StreamRequest, StreamResponse> {
  private AgentStream(Channel channel, Duration timeout) {
    super(channel, InferenceServiceGrpc.getStreamMethod(), timeout);
  }

  static AgentStream open(Channel channel, Duration timeout) {
    AgentStream stream = new AgentStream(channel, timeout);
    stream.start();
    return stream;
  }

  /** Brings an agent of the stream alone, which ends with it. */
  public Agent bring(String policy) {
    return bring(StreamAgent.newBuilder().setPolicy(policy).build());
  }

  /** Brings an agent; one with an id that is there already goes on, unless it is to be reset. */
  public Agent bring(StreamAgent agent) {
    return bring(List.of(agent)).get(0);
  }

  /** Brings many at once. */
  public List<Agent> bring(List<StreamAgent> agents) {
    StreamOpened opened = opened(agents);
    List<Agent> brought = new ArrayList<>();
    for (int at = 0; at < agents.size(); at++) {
      Agent agent = new Agent(agents.get(at));
      agent.take(opened, at);
      brought.add(agent);
    }
    return brought;
  }

  /** Lets agents of one policy, each named once, make a step: a row of numbers for each. */
  public Steps step(List<Agent> agents, float[][] observations, boolean isDeterministic) {
    return await(stepAsync(agents, observations, isDeterministic), timeout);
  }

  /** The same, with the answer to come, on a thread of grpc's, which is not to be kept waiting. */
  public CompletableFuture<Steps> stepAsync(
      List<Agent> agents, float[][] observations, boolean isDeterministic) {
    try {
      checkRows(agents, observations);
    } catch (StewardException.InvalidRequest refusal) {
      return CompletableFuture.failedFuture(refusal);
    }
    PackedSteps.Builder steps =
        PackedSteps.newBuilder()
            .setObservations(Steps.packed(observations))
            .setDeterministic(isDeterministic);
    agents.forEach(agent -> steps.addAgents(agent.number));
    return ask(request().setPacked(steps).build())
        .thenApply(answer -> Steps.of(answer.getPacked(), agents.size()));
  }

  /** Sends any message, under a number of its own, and gives the answer to come, likewise. */
  public CompletableFuture<StreamResponse> ask(StreamRequest request) {
    return send(number -> request.toBuilder().setSequence(number).build());
  }

  /**
   * Refuses what the server would take for something else: no agents are all of the stream to it,
   * and it tells rows apart by their number.
   */
  private static void checkRows(List<Agent> agents, float[][] rows) {
    if (agents.isEmpty() || rows.length != agents.size()) {
      throw new StewardException.InvalidRequest(
          "%d rows are given for %d agents; give a row for each, and an agent at least"
              .formatted(rows.length, agents.size()));
    }
    for (int at = 1; at < rows.length; at++) {
      if (rows[at].length != rows[0].length) {
        throw new StewardException.InvalidRequest(
            "row %d has %d numbers, row 0 has %d; give all of them as many"
                .formatted(at, rows[at].length, rows[0].length));
      }
    }
  }

  private StreamOpened opened(List<StreamAgent> agents) {
    StreamOpen open = StreamOpen.newBuilder().addAllAgents(agents).build();
    StreamOpened opened = await(ask(request().setOpen(open).build()), timeout).getOpened();
    if (opened.getPoliciesCount() != agents.size() || opened.getBegunCount() != agents.size()) {
      throw StewardException.ServerFault.ofRows(agents.size());
    }
    return opened;
  }

  private StreamRequest.Builder request() {
    return StreamRequest.newBuilder().setTimeoutMs(Math.toIntExact(timeout.toMillis()));
  }

  @Override
  long numberOf(StreamResponse message) {
    return message.getSequence();
  }

  @Override
  Status refusalOf(StreamResponse answer) {
    return answer.hasRefusal() ? answer.getRefusal() : null;
  }

  @Override
  void take(StreamResponse message) {
    // The server says nothing by itself on this stream.
  }

  @Override
  StewardException cut(StewardException why, boolean hasAnswered) {
    return hasAnswered ? new StewardException.StreamBroken(why) : why;
  }

  /** One agent of a stream. */
  public final class Agent {
    private final StreamAgent asked;
    private volatile int number;
    private volatile String policy;
    private volatile boolean hasBegun;
    private volatile boolean isEnded;

    private Agent(StreamAgent asked) {
      this.asked = asked;
    }

    /** Its policy, with the version. */
    public String policy() {
      return policy;
    }

    /** Whether its sequence began when the stream brought it; else it went on. */
    public boolean hasBegun() {
      return hasBegun;
    }

    /** Makes a step, by an action drawn at random. */
    public StepResponse step(float... observation) {
      return await(stepAsync(observation, false), timeout);
    }

    /** Makes a step, by the likeliest action. */
    public StepResponse likeliestStep(float... observation) {
      return await(stepAsync(observation, true), timeout);
    }

    /** Makes a step, with the answer to come, on a thread of grpc's. */
    public CompletableFuture<StepResponse> stepAsync(float[] observation, boolean isDeterministic) {
      StreamStep.Builder step =
          StreamStep.newBuilder().setAgent(number).setDeterministic(isDeterministic);
      for (float each : observation) {
        step.addObservation(each);
      }
      return ask(request().setStep(step).build()).thenApply(StreamResponse::getStep);
    }

    /**
     * Begins its sequence anew, with draws that nobody can repeat. If that is refused, it may be
     * asked for again.
     */
    public void reset() {
      begin(asked.toBuilder().clearSeed());
    }

    /** The same, with draws that the seed repeats. */
    public void reset(long seed) {
      begin(asked.toBuilder().setSeed(seed));
    }

    /** Takes it out of the stream; one without an id ends. It is not to be used again. */
    public void end() {
      if (isEnded) { // and a reset that was to begin it anew was refused
        return;
      }
      StreamClose close = StreamClose.newBuilder().addAgents(number).build();
      await(ask(request().setClose(close).build()), timeout);
      isEnded = true;
    }

    private void begin(StreamAgent.Builder fresh) {
      end();
      take(opened(List.of(fresh.setReset(true).build())), 0);
    }

    private void take(StreamOpened opened, int at) {
      number = opened.getFirst() + at;
      policy = opened.getPolicies(at);
      hasBegun = opened.getBegun(at);
      isEnded = false;
    }
  }
}
