package dev.steward.client;

import com.google.api.AnnotationsProto;
import com.google.protobuf.DescriptorProtos.MethodOptions;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import dev.steward.auth.v1.AuthServiceGrpc;
import dev.steward.gateway.v1.Access;
import dev.steward.gateway.v1.MethodRule;
import dev.steward.gateway.v1.Options;
import io.grpc.MethodDescriptor;
import io.grpc.protobuf.ProtoMethodDescriptorSupplier;
import java.util.UUID;

/**
 * What a method's contract says of how it is called.
 *
 * @param isPublic no credential is shown
 * @param isIdempotent doing it twice has the effect of doing it once, whatever the request
 * @param requestId the field of an identity by which repeats are known; null where there is none
 */
record MethodRules(boolean isPublic, boolean isIdempotent, FieldDescriptor requestId) {
  static MethodRules of(MethodDescriptor<?, ?> method) {
    if (!(method.getSchemaDescriptor() instanceof ProtoMethodDescriptorSupplier supplier)) {
      return new MethodRules(false, false, null);
    }
    var descriptor = supplier.getMethodDescriptor();
    MethodOptions options = descriptor.getOptions();
    MethodRule rule = options.getExtension(Options.method);
    // For ten seconds a spent token gives the same successor again, as an answer may be lost.
    boolean isRefresh =
        method.getFullMethodName().equals(AuthServiceGrpc.getRefreshMethod().getFullMethodName());
    return new MethodRules(
        rule.getAccess() == Access.ACCESS_PUBLIC,
        options.getExtension(AnnotationsProto.http).hasGet() || isRefresh,
        descriptor.getInputType().findFieldByName(rule.getRequestIdField()));
  }

  /** Whether doing it twice has the effect of doing it once. */
  boolean isRepeatable(Object request) {
    return isIdempotent || requestId != null && hasRequestId((Message) request);
  }

  /** The request with an identity: its own, or a new one. */
  <Q> Q identified(Q request) {
    if (requestId == null || hasRequestId((Message) request)) {
      return request;
    }
    @SuppressWarnings("unchecked")
    Q identified =
        (Q)
            ((Message) request)
                .toBuilder().setField(requestId, UUID.randomUUID().toString()).build();
    return identified;
  }

  private boolean hasRequestId(Message request) {
    return !request.getField(requestId).equals("");
  }
}
