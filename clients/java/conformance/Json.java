import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.steward.gateway.v1.TextErrors;

/** Messages in the JSON of proto3. */
final class Json {
  /** What refusals within an answer may have as details. */
  private static final JsonFormat.TypeRegistry DETAILS =
      JsonFormat.TypeRegistry.newBuilder()
          .add(ErrorInfo.getDescriptor())
          .add(BadRequest.getDescriptor())
          .add(RetryInfo.getDescriptor())
          .add(TextErrors.getDescriptor())
          .build();

  private Json() {}

  static JsonElement of(Message message) {
    try {
      return JsonParser.parseString(JsonFormat.printer().usingTypeRegistry(DETAILS).print(message));
    } catch (InvalidProtocolBufferException error) {
      throw new IllegalArgumentException("a detail of the answer is unknown", error);
    }
  }

  static Message read(JsonElement json, Message kind) {
    Message.Builder builder = kind.newBuilderForType();
    try {
      JsonFormat.parser().usingTypeRegistry(DETAILS).merge(json.toString(), builder);
    } catch (InvalidProtocolBufferException error) {
      throw new IllegalArgumentException(json + " is no " + kind.getDescriptorForType(), error);
    }
    return builder.build();
  }
}
