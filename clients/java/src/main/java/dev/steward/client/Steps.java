package dev.steward.client;

import com.google.protobuf.ByteString;
import dev.steward.inference.v1.PackedResults;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** A step of many agents of one policy; everything has a row for each of them. */
public final class Steps {
  private final PackedResults results;

  private Steps(PackedResults results) {
    this.results = results;
  }

  /** Those of so many agents, if the answer has a row for each. */
  static Steps of(PackedResults results, int count) {
    int rowsBytes = count * Float.BYTES;
    int actionsBytes = results.getActions().size();
    boolean hasRows =
        actionsBytes > 0
            && actionsBytes % rowsBytes == 0
            && results.getValues().size() == rowsBytes
            && results.getLogProbs().size() == rowsBytes
            && results.getPressures().size() == rowsBytes;
    if (!hasRows) {
      throw StewardException.ServerFault.ofRows(count);
    }
    return new Steps(results);
  }

  /** How many rows there are. */
  public int size() {
    return results.getValues().size() / Float.BYTES;
  }

  /** Of a discrete policy: one of its choices, from 0 on. */
  public int[] choices() {
    int[] choices = new int[results.getActions().size() / Integer.BYTES];
    bytes(results.getActions()).asIntBuffer().get(choices);
    return choices;
  }

  /** Of a continuous policy: the rows' numbers, one row after the other. */
  public float[] numbers() {
    return floats(results.getActions());
  }

  /** What the policy expects to come from there on. */
  public float[] values() {
    return floats(results.getValues());
  }

  /** The natural logarithms of the likelihoods of the actions. */
  public float[] logProbs() {
    return floats(results.getLogProbs());
  }

  /** Of the agents' memory. */
  public float[] pressures() {
    return floats(results.getPressures());
  }

  /**
   * Rows for which the policy gave no finite numbers: their agents begin anew, and what else is
   * told of these rows means nothing.
   */
  public List<Integer> failed() {
    return results.getFailedList();
  }

  /** Rows of numbers as float32, little-endian. */
  static ByteString packed(float[][] rows) {
    int count = 0;
    for (float[] row : rows) {
      count += row.length;
    }
    ByteBuffer packed = ByteBuffer.allocate(count * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (float[] row : rows) {
      for (float number : row) {
        packed.putFloat(number);
      }
    }
    return ByteString.copyFrom(packed.flip());
  }

  private static float[] floats(ByteString packed) {
    float[] numbers = new float[packed.size() / Float.BYTES];
    bytes(packed).asFloatBuffer().get(numbers);
    return numbers;
  }

  private static ByteBuffer bytes(ByteString packed) {
    return packed.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
  }
}
