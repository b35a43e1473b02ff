package steward

import (
	"strings"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authv1 "steward/clients/go/gen/steward/auth/v1"
	gatewayv1 "steward/clients/go/gen/steward/gateway/v1"
)

// rules is what the contract of a method says of calling it.
type rules struct {
	// public methods are called without a credential.
	public bool
	// idempotent: doing it twice has the effect of doing it once, whatever the request.
	idempotent bool
	// requestID names the field of the request that repeats are known by; empty: there is none.
	requestID protoreflect.Name
}

var knownRules sync.Map // of method names, such as "/steward.auth.v1.AuthService/GetMe"

// rulesOf are those of a method; of one without a contract here, that nothing is safe.
func rulesOf(method string) rules {
	if known, found := knownRules.Load(method); found {
		return known.(rules)
	}
	read := readRules(method)
	knownRules.Store(method, read)
	return read
}

func readRules(method string) rules {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return rules{}
	}
	options := found.Options()
	http, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	rule, _ := proto.GetExtension(options, gatewayv1.E_Method).(*gatewayv1.MethodRule)
	// For ten seconds a spent token gives the same successor again, as an answer may be lost.
	isRefresh := method == authv1.AuthService_Refresh_FullMethodName
	return rules{
		public:     rule.GetAccess() == gatewayv1.Access_ACCESS_PUBLIC,
		idempotent: http.GetGet() != "" || isRefresh,
		requestID:  protoreflect.Name(rule.GetRequestIdField()),
	}
}

// identified is the request under an identity of its own, so that a repeat does nothing twice; and
// whether the call is safe to repeat. The caller's request is not changed.
func (r rules) identified(request any) (any, bool) {
	message, ok := request.(proto.Message)
	if !ok || r.requestID == "" {
		return request, r.idempotent
	}
	field := message.ProtoReflect().Descriptor().Fields().ByName(r.requestID)
	if field == nil || field.Kind() != protoreflect.StringKind {
		return request, r.idempotent
	}
	if message.ProtoReflect().Get(field).String() != "" {
		return request, true
	}
	named := proto.Clone(message)
	named.ProtoReflect().Set(field, protoreflect.ValueOfString(uuid.NewString()))
	return named, true
}
