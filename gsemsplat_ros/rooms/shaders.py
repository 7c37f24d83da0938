"""The OpenGL shaders of the renderer.

Plain shading is by the displayed colours, for comparison with earlier networks. The photographic one is by
linear light: windows are lights with an area, shadows are soft, surfaces gloss, parts without a texture get
one along the axes of their model, and a tone curve (Narkowicz's fit to ACES) compresses what is bright.
"""

VERTEX_SHADER = """
#version 330
uniform mat4 clip_from_world;
uniform vec4 depth_row;
in vec3 position; in vec4 normal; in vec3 uv; in vec4 color; in vec2 layer_id;
out vec3 p; out vec4 n; out vec3 t; out vec4 c; out float z; flat out vec2 li;
void main() {
    p = position; n = vec4((normal.xyz * 255.0 - 128.0) / 127.0, normal.w); t = uv; c = color; li = layer_id;
    z = dot(depth_row, vec4(position, 1));
    gl_Position = clip_from_world * vec4(position, 1);
}"""
_INPUTS = """
#version 330
uniform sampler2DArray textures;
in vec3 p; in vec4 n; in vec3 t; in vec4 c; in float z; flat in vec2 li;
"""
SURVEY_SHADER = (
    _INPUTS
    + """
out vec2 geometry;
void main() {
    vec4 albedo = texture(textures, vec3(t.xy, abs(li.x)));
    CUT_OUT
    geometry = vec2(z, li.y);
}"""
)
_LIT = (
    _INPUTS
    + """
uniform sampler2DShadow shadow0; uniform sampler2DShadow shadow1;
uniform vec3 eye; uniform vec3 room; uniform int lights;
uniform vec3 light_at[4]; uniform vec3 light_color[4]; uniform mat3 light_turn[2];
uniform vec2 clip_z; uniform float reach;
layout(location = 0) out vec4 rgb;
layout(location = 1) out vec2 geometry;
float lit(sampler2DShadow map, vec3 q) {
    float w = -q.z;
    if (w < 0.1) return 1.0;
    vec3 s = vec3(q.xy / (reach * w), clip_z.x - clip_z.y / w) * 0.5 + 0.5;
    return max(abs(s.x - 0.5), abs(s.y - 0.5)) > 0.5 ? 1.0 : texture(map, s);
}
vec3 facing(vec3 view) {
    vec3 m = dot(n.xyz, n.xyz) < 0.01 ? cross(dFdx(p), dFdy(p)) : n.xyz;
    m = normalize(m);
    return dot(m, view) < 0.0 ? -m : m;
}
float openness(vec3 m) {                   // darker towards the edges of the room, except along a surface
    vec3 away = 1.0 - abs(m);
    vec3 low = exp(-max(p, 0.0) / 0.25), high = exp(-max(room - p, 0.0) / 0.25);
    vec3 dark = 1.0 - 0.3 * away * (low + high);
    return clamp(dark.x * dark.y * dark.z, 0.3, 1.0);
}
"""
)
PLAIN_SHADER = (
    _LIT
    + """
uniform float ambient;
void main() {
    vec4 albedo = texture(textures, vec3(t.xy, li.x));
    CUT_OUT
    vec3 m = facing(eye - p);
    float open = openness(m);
    vec3 light = vec3(ambient * (0.8 + 0.2 * m.z) * open);
    for (int k = 0; k < lights; k++) {
        vec3 l = light_at[k] - p;
        float d2 = dot(l, l);
        float lambert = max(dot(m, l) * inversesqrt(d2), 0.0) / (1.0 + 0.12 * d2);
        vec3 q = p + m * 0.02 - light_at[k];
        if (lambert > 0.0 && k == 0) lambert *= lit(shadow0, q);
        if (lambert > 0.0 && k == 1) lambert *= lit(shadow1, q);
        light += light_color[k] * lambert * (0.5 + 0.5 * open);
    }
    rgb = vec4(albedo.rgb * c.rgb * mix(light, vec3(1.0), c.a), 1.0);
    geometry = vec2(z, li.y);
}"""
)
PHOTOGRAPHIC_SHADER = (
    _LIT
    + """
uniform vec3 sky; uniform vec3 ground; uniform float exposure;
uniform vec3 light_normal[4]; uniform float light_radius[4];
vec3 toned(vec3 x) {
    return clamp(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0.0, 1.0);
}
void main() {
    vec2 at = t.xy;
    if (li.x < 0.0) {                      // along the axes of the model
        vec3 a = abs(cross(dFdx(t), dFdy(t)));
        at = a.x > a.y && a.x > a.z ? t.yz : a.y > a.z ? t.xz : t.xy;
    }
    vec4 albedo = texture(textures, vec3(at, abs(li.x)));
    CUT_OUT
    vec3 v = normalize(eye - p), m = facing(v), r = reflect(-v, m);
    vec3 base = albedo.rgb * c.rgb;
    base *= base;                          // linear, by a gamma of 2
    float open = openness(m), gloss = n.w, sharp = exp2(2.0 + 8.0 * gloss);
    vec3 light = mix(ground, sky, 0.5 + 0.5 * m.z) * open * open;
    vec3 shine = mix(ground, sky, clamp(2.0 * r.z + 0.5, 0.0, 1.0)) * open;
    // soft shadows: from pixel to pixel another point of the surface around, as far as the light is large
    float angle = 6.2832 * fract(52.9829 * fract(dot(gl_FragCoord.xy, vec2(0.06711, 0.00584))));
    float spread = 0.3 * fract(dot(gl_FragCoord.xy, vec2(0.75488, 0.56984)));
    vec3 aside = spread * cross(m, vec3(cos(angle), sin(angle), cos(angle + 2.0)));
    for (int k = 0; k < lights; k++) {
        vec3 l = light_at[k] - p;
        float d2 = dot(l, l);
        l *= inversesqrt(d2);
        float face = dot(light_normal[k], light_normal[k]) < 0.5 ? 1.0 : max(-dot(l, light_normal[k]), 0.0);
        float lambert = max(dot(m, l), 0.0);
        if (face > 0.0 && lambert > 0.0) {
            vec3 q = p + m * 0.03 - light_at[k];
            if (k == 0) face *= lit(shadow0, light_turn[0] * (q + light_radius[0] * aside));
            if (k == 1) face *= lit(shadow1, light_turn[1] * (q + light_radius[1] * aside));
            light += light_color[k] * face * lambert / (0.5 + light_radius[k] * light_radius[k] + d2);
        }
        if (gloss > 0.05) shine += light_color[k] * face * (0.1 + gloss) * pow(max(dot(r, l), 0.0), sharp);
    }
    float away = 1.0 - max(dot(m, v), 0.0);
    float fresnel = gloss * (0.04 + 0.96 * away * away * away * away * away);
    vec3 x = base * mix(light, vec3(4.0 / exposure), c.a) + fresnel * shine * (1.0 - c.a);
    rgb = vec4(sqrt(toned(0.6 * exposure * x)), 1.0);
    geometry = vec2(z, li.y);
}"""
)
SHADOW_SHADER = """
#version 330
uniform mat4 clip_from_world;
in vec3 position;
void main() { gl_Position = clip_from_world * vec4(position, 1); }"""
