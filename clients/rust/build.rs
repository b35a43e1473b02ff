//! Compiles the contracts, and writes down what the client must know of each method.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{DescriptorPool, MethodDescriptor, ReflectMessage, Value};

const PROTOS: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTOS}");
    let root = Path::new(PROTOS);
    let third_party = root.join("third_party");
    let mut files = Vec::new();
    find(&root.join("steward"), &mut files)?;
    find(&third_party, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([third_party.as_path(), root])?;
    compiler.include_imports(true).open_files(files)?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let encoded = compiler.encode_file_descriptor_set();
    let methods = table(&DescriptorPool::decode(encoded.as_slice())?)?;
    fs::write(out_dir.join("methods.rs"), methods)?;
    fs::write(out_dir.join("descriptors.binpb"), encoded)?;

    tonic_prost_build::configure()
        .build_server(false)
        .btree_map(".")
        .include_file("proto.rs")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// All methods, in the order of their paths.
fn table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut rows = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        rows.push((path, row(pool, &method)?));
    }
    rows.sort();
    let mut text = format!("pub(crate) static METHODS: [(&str, Method); {}] = [\n", rows.len());
    for (path, row) in rows {
        writeln!(text, "    ({path:?}, {row}),")?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn row(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<String, Box<dyn Error>> {
    let options = method.options();
    let rule = |name: &str| {
        let extension = pool.get_extension_by_name(name)?;
        let value = options.has_extension(&extension).then(|| options.get_extension(&extension))?;
        value.as_message().cloned()
    };
    let http = rule("google.api.http");
    let steward = rule("steward.gateway.v1.method");

    let reads = http.is_some_and(|http| http.has_field_by_name("get"));
    let named = steward.as_ref().and_then(|rule| rule.get_field_by_name("request_id_field"));
    let field = named.as_deref().and_then(Value::as_str).unwrap_or_default();
    let request_id = match field {
        "" => None,
        name => Some(method.input().get_field_by_name(name).ok_or("no such field")?.number()),
    };
    let public = steward.is_some_and(|rule| {
        let field = rule.descriptor().get_field_by_name("access");
        let kind = field.as_ref().map(|field| field.kind());
        let public =
            kind.as_ref().and_then(|kind| kind.as_enum()?.get_value_by_name("ACCESS_PUBLIC"));
        rule.get_field_by_name("access").and_then(|value| value.as_enum_number())
            == public.map(|value| value.number())
    });
    Ok(format!(
        "Method {{ reads: {reads}, request_id: {request_id:?}, public: {public}, \
         streams_requests: {}, streams_answers: {} }}",
        method.is_client_streaming(),
        method.is_server_streaming(),
    ))
}
