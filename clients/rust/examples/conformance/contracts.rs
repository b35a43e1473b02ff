//! Methods and messages by their names, and messages in the JSON of proto3.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::Checked;

#[derive(Clone)]
pub struct Contracts(DescriptorPool);

impl Contracts {
    pub fn new() -> Self {
        let pool = DescriptorPool::decode(steward_client::FILE_DESCRIPTOR_SET);
        Self(pool.expect("the client was built from them"))
    }

    /// Looks a method up by `package.Service/Method`.
    pub fn method(&self, name: &str) -> Checked<MethodDescriptor> {
        let (service, short) = name.split_once('/').unwrap_or_default();
        let service = self.0.get_service_by_name(service);
        let found = service.and_then(|each| each.methods().find(|method| method.name() == short));
        found.ok_or_else(|| format!("there is no method {name:?}"))
    }

    /// Reads a message that has a type in the generated code.
    pub fn read<M: Message + Default>(&self, name: &str, json: &Value) -> Checked<M> {
        let message = read(self.message(name), json)?;
        Ok(message.transcode_to().expect("both are made from one contract"))
    }

    /// Writes a message that has a type in the generated code.
    pub fn written<M: Message>(&self, name: &str, message: &M) -> Value {
        let mut dynamic = DynamicMessage::new(self.message(name));
        dynamic.transcode_from(message).expect("both are made from one contract");
        written(&dynamic)
    }

    fn message(&self, name: &str) -> MessageDescriptor {
        self.0.get_message_by_name(name).expect("the client was built with it")
    }
}

pub fn read(kind: MessageDescriptor, json: &Value) -> Checked<DynamicMessage> {
    let name = kind.full_name().to_owned();
    DynamicMessage::deserialize(kind, json.clone())
        .map_err(|error| format!("{json} is no {name}: {error}"))
}

pub fn written(message: &DynamicMessage) -> Value {
    serde_json::to_value(message).expect("each message has a form in JSON")
}

/// How a method's messages look on the wire.
pub struct DynamicCodec(pub MethodDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Wire;
    type Decoder = Wire;

    fn encoder(&mut self) -> Wire {
        Wire(self.0.input())
    }

    fn decoder(&mut self) -> Wire {
        Wire(self.0.output())
    }
}

pub struct Wire(MessageDescriptor);

impl Encoder for Wire {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(
        &mut self,
        message: DynamicMessage,
        buffer: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Wire {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
