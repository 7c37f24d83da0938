"""The live page of `gsemsplat view`.

Takes a scene, a map, a PLY file or a running node; gives a web page with splats and queries. No ROS.

shown_scene: the Gaussians on the page, with up direction, first view and cameras
file_source: scenes, maps and PLY files as a source
colors: colours of the Gaussians in each mode
splat_cache: the splats of each mode, made once for all visitors
shared_state: Gaussians and answers that all visitors share
page_answer: an answer on the Gaussians of the page
pipeline_source: answers and semantic colours from a pipeline in this process
server: the viser server, with a page for each browser
gate: who may connect
visitor_page: one visitor's query, answer and picture
visitor_camera, visitor_overlay, visitor_panel: the visitor's camera, own scene objects and controls
panel_text, question_history: texts and earlier queries of the panel
still_picture: the picture of a visitor who stands still, drawn here
repeated_job: a job that runs once at a time, then for the newest request
pause: something to be done once nothing has happened for a while
film: the video of a visitor
"""
