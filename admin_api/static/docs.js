"use strict";
// Shows the OpenAPI document. Whatever comes from it is set as text, never as markup.

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function table(head, rows) {
  const made = element("table");
  const first = made.insertRow();
  for (const title of head) first.append(element("th", title));
  for (const cells of rows) {
    const row = made.insertRow();
    for (const cell of cells) row.insertCell().append(cell instanceof Node ? cell : String(cell));
  }
  return made;
}

function resolved(schema, whole) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? whole.components.schemas[name] : schema || {};
}

function kind(schema, whole) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => kind(one, whole)).join(" or ");
  if (schema.type === "array") return "list of " + kind(schema.items || {}, whole);
  return schema.format || schema.type || "any";
}

function limits(schema) {
  const found = [];
  for (const [name, word] of [["minLength", "at least"], ["maxLength", "at most"]])
    if (schema[name]) found.push(`${word} ${schema[name]} characters`);
  for (const name of ["minimum", "maximum", "default"])
    if (schema[name] !== undefined && schema[name] !== null && schema[name] !== "") found.push(`${name} ${JSON.stringify(schema[name])}`);
  return found.join(", ");
}

function fields(schema, whole) {
  const needed = new Set(schema.required || []);
  const rows = Object.entries(schema.properties || {}).map(([name, about]) => [
    element("code", name + (needed.has(name) ? " *" : "")),
    kind(about, whole),
    [about.description, limits(about)].filter(Boolean).join("; "),
  ]);
  return rows.length ? table(["field", "type", ""], rows) : element("span", "");
}

function content(media, whole) {
  const made = element("div");
  for (const [type, about] of Object.entries(media || {})) {
    made.append(element("p", type, "path"));
    if (about.schema) made.append(fields(resolved(about.schema, whole), whole));
  }
  return made;
}

function operation(path, method, about, whole) {
  const made = element("details");
  const head = element("summary");
  head.append(element("span", method.toUpperCase(), "method"), element("span", path, "path"), element("span", about.summary, "note"));
  made.append(head);
  if (about.description) made.append(element("p", about.description));
  made.append(element("p", about.security.length ? "Needs a token." : "Needs no token."));
  if (about.parameters.length) {
    made.append(element("h4", "Parameters"));
    made.append(table(["name", "in", "type", ""], about.parameters.map((one) => [
      element("code", one.name), one.in, kind(one.schema, whole), [one.description, limits(one.schema)].filter(Boolean).join("; "),
    ])));
  }
  if (about.requestBody) made.append(element("h4", "Body"), content(about.requestBody.content, whole));
  made.append(element("h4", "Answers"));
  for (const [status, answer] of Object.entries(about.responses)) {
    const one = element("div");
    one.append(element("p", `${status}: ${answer.description}`));
    if (status < "300") one.append(content(answer.content, whole));
    made.append(one);
  }
  return made;
}

function show(whole) {
  document.getElementById("about").textContent = whole.info.description;
  const main = document.getElementById("routes");
  main.textContent = "";
  for (const tag of whole.tags) {
    main.append(element("h2", tag.name), element("p", tag.description));
    for (const [path, methods] of Object.entries(whole.paths))
      for (const [method, about] of Object.entries(methods))
        if (about.tags.includes(tag.name)) main.append(operation(path, method, about, whole));
  }
}

fetch("api/v1/openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => { document.getElementById("routes").textContent = "The document could not be read: " + error; });
