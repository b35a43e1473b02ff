package steward

import (
	"testing"

	"github.com/google/uuid"

	authv1 "steward/clients/go/gen/steward/auth/v1"
	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

func TestWhatOnlyReadsMayBeRepeated(t *testing.T) {
	request := &authv1.GetMeRequest{}
	got, repeatable := rulesOf(authv1.AuthService_GetMe_FullMethodName).identified(request)
	if got != any(request) || !repeatable {
		t.Errorf("it is %v, %t", got, repeatable)
	}
}

func TestARenewalMayBeRepeated(t *testing.T) {
	if _, repeatable := rulesOf(authv1.AuthService_Refresh_FullMethodName).identified(&authv1.RefreshRequest{}); !repeatable {
		t.Error("a lost answer is not asked for again")
	}
}

func TestWhatHasNoIdentityIsNotRepeated(t *testing.T) {
	if _, repeatable := rulesOf(budgetv1.BudgetService_Return_FullMethodName).identified(&budgetv1.ReturnRequest{}); repeatable {
		t.Error("a lease is returned twice")
	}
}

func TestARequestIsGivenAnIdentityAndIsNotChanged(t *testing.T) {
	request := &budgetv1.HandshakeRequest{Provider: "openai"}
	got, repeatable := rulesOf(budgetv1.BudgetService_Handshake_FullMethodName).identified(request)
	named := got.(*budgetv1.HandshakeRequest)
	if err := uuid.Validate(named.RequestId); err != nil || named.Provider != "openai" || !repeatable {
		t.Errorf("it is %v, %t: %v", named, repeatable, err)
	}
	if request.RequestId != "" {
		t.Errorf("the caller's is now %v", request)
	}
}

func TestAnIdentityOfTheCallersOwnIsKept(t *testing.T) {
	request := &budgetv1.HandshakeRequest{RequestId: "mine"}
	got, repeatable := rulesOf(budgetv1.BudgetService_Handshake_FullMethodName).identified(request)
	if got != any(request) || !repeatable {
		t.Errorf("it is %v, %t", got, repeatable)
	}
}

func TestOnlyPublicMethodsAreCalledWithoutACredential(t *testing.T) {
	if !rulesOf(authv1.AuthService_Login_FullMethodName).public || rulesOf(authv1.AuthService_GetMe_FullMethodName).public {
		t.Error("a sign-in wants a credential, or who one is none")
	}
}

func TestOfAMethodThatIsNotKnownNothingIsSafe(t *testing.T) {
	if got := rulesOf("/some.other.Service/Get"); got != (rules{}) {
		t.Errorf("it has %v", got)
	}
}
