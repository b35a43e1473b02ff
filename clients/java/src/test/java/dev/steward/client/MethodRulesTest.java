package dev.steward.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.steward.agents.v1.AgentServiceGrpc;
import dev.steward.auth.v1.AuthServiceGrpc;
import dev.steward.auth.v1.GetMeRequest;
import dev.steward.auth.v1.RefreshRequest;
import dev.steward.budget.v1.BudgetServiceGrpc;
import dev.steward.budget.v1.HandshakeRequest;
import dev.steward.budget.v1.ReturnRequest;
import java.util.UUID;
import org.junit.jupiter.api.Test;

class MethodRulesTest {
  private static final MethodRules HANDSHAKE =
      MethodRules.of(BudgetServiceGrpc.getHandshakeMethod());

  @Test
  void whatOnlyReadsMayBeRepeated() {
    MethodRules rules = MethodRules.of(AuthServiceGrpc.getGetMeMethod());
    assertTrue(rules.isRepeatable(GetMeRequest.getDefaultInstance()));
  }

  @Test
  void whatCanHaveAnIdentityMayBeRepeatedUnderIt() {
    assertFalse(HANDSHAKE.isRepeatable(HandshakeRequest.getDefaultInstance()));
    assertTrue(HANDSHAKE.isRepeatable(HandshakeRequest.newBuilder().setRequestId("a").build()));
  }

  @Test
  void aRenewalMayBeRepeated() {
    MethodRules rules = MethodRules.of(AuthServiceGrpc.getRefreshMethod());
    assertTrue(rules.isRepeatable(RefreshRequest.getDefaultInstance()));
  }

  @Test
  void whatHasNoIdentityIsNotRepeated() {
    MethodRules rules = MethodRules.of(BudgetServiceGrpc.getReturnMethod());
    assertFalse(rules.isRepeatable(ReturnRequest.getDefaultInstance()));
  }

  @Test
  void aRequestIsGivenAnIdentityOfItsOwn() {
    HandshakeRequest request = HANDSHAKE.identified(HandshakeRequest.getDefaultInstance());
    assertEquals(request.getRequestId(), UUID.fromString(request.getRequestId()).toString());
  }

  @Test
  void anIdentityOfTheCallersOwnIsKept() {
    HandshakeRequest request = HandshakeRequest.newBuilder().setRequestId("a").build();
    assertSame(request, HANDSHAKE.identified(request));
  }

  @Test
  void onlyPublicMethodsAreCalledWithoutACredential() {
    assertTrue(MethodRules.of(AuthServiceGrpc.getLoginMethod()).isPublic());
    assertFalse(MethodRules.of(AgentServiceGrpc.getListAgentsMethod()).isPublic());
  }
}
