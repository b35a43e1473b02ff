package dev.steward.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.Context.CancellableContext;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.util.Iterator;
import java.util.function.Supplier;

/** Answers of one call, as they come; closing it before they end gives the call up. */
public final class Answers<A> implements Iterator<A>, AutoCloseable {
  private final CancellableContext context = Context.current().withCancellation();
  private final Iterator<A> answers;

  <Q> Answers(Channel channel, MethodDescriptor<Q, A> method, Q request) {
    Context before = context.attach();
    try {
      answers =
          ClientCalls.blockingServerStreamingCall(channel, method, CallOptions.DEFAULT, request);
    } finally {
      context.detach(before);
    }
  }

  /** Waits for the next answer, or the end of them. */
  @Override
  public boolean hasNext() {
    return refusing(answers::hasNext);
  }

  @Override
  public A next() {
    return refusing(answers::next);
  }

  @Override
  public void close() {
    context.cancel(null);
  }

  private static <T> T refusing(Supplier<T> read) {
    try {
      return read.get();
    } catch (StatusRuntimeException error) {
      throw StewardException.of(error);
    }
  }
}
